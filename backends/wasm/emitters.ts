/** One emitter per family of ops. */
import { InternalError, invariant } from '../../ir/diagnostic.ts';
import { isContractRoot, isReduceRoot, type FusedKind } from '../../ir/fused.ts';
import type { Op, Value } from '../../ir/graph.ts';
import { tensorAttr, type OpFamily } from '../../ir/op.ts';
import { opDef } from '../../ir/ops/index.ts';
import type { Placed } from '../../ir/tile.ts';
import { bytesOf, rowMajor } from '../../ir/type.ts';
import { emitArg } from './arg.ts';
import type { Asm, E } from './asm.ts';
import { bandsKernel } from './contract/bands.ts';
import { holdsBlocks } from './contract/conv-direct.ts';
import { contractionOf } from './contract/fused.ts';
import { genericContraction } from './contract/generic.ts';
import { contraction, packedConv } from './contract/index.ts';
import { blockMoments } from './contract/moments.ts';
import { isLaneType, isVectorChain } from './elementwise/index.ts';
import { emitIndex } from './gather.ts';
import { kernelKey, type Emitter, type KernelCode, type Setting } from './kernel.ts';
import { emitMap } from './map.ts';
import { emitMove } from './move.ts';
import { kernel } from './nest.ts';
import { emitRandom } from './random.ts';
import { emitRows, plainRegion } from './row/index.ts';
import { emitScan } from './scan.ts';
import { emitScatter } from './scatter.ts';
import { slabsKernel } from './slabs.ts';
import { emitSort } from './sort.ts';
import { emitFusedWindow, emitResample, emitWindow } from './window.ts';

/** The kernel of one op, plain or fused. */
export function emitOp(asm: Asm, op: Op, operands: readonly Placed[], results: readonly Placed[], setting?: Setting): KernelCode {
  return byFamily[opDef(op.name).family](asm, op, operands, results, setting);
}

const emitReduce: Emitter = (asm, op, operands, results, setting) => {
  if (op.name === 'argMax' || op.name === 'argMin') return emitArg(asm, op, operands, results);
  return emitRows(asm, kernelKey(op, operands, results), plainRegion(op), operands, results, setting);
};

const emitFused: Emitter = (asm, op, operands, results, setting) => {
  const region = op.regions[0]!;
  const inside = { ops: region.ops, inputs: region.inputs, outputs: region.outputs.map((o) => o.value) };
  switch (op.attrs['kind'] as FusedKind) {
    case 'map': return emitMap(asm, op, operands, results, setting);
    case 'contract': return emitFusedContraction(asm, op, operands, results);
    case 'row': return emitRows(asm, kernelKey(op, operands, results), inside, operands, results, setting);
    case 'reduce': {
      const root = region.ops.find(isReduceRoot);
      invariant(root !== undefined, 'a fused reduction has a root');
      const key = kernelKey(op, operands, results);
      const positions = root.name === 'maxPool' && [...region.ops.flatMap((o) => o.operands), ...region.outputs.map((o) => o.value)].includes(root.results[1]!);
      if (positions || root.name === 'argMax' || root.name === 'argMin') return emitSequence(asm, op, operands, results);
      return opDef(root.name).family === 'window' ? emitFusedWindow(asm, key, op, root, operands, results) : emitRows(asm, key, inside, operands, results, setting);
    }
  }
};

/** Whether lanes can hold the epilogue of a contraction, plain or fused. */
function runsOnLanes(op: Op): boolean {
  const [region] = op.regions;
  if (!region) return true;
  const epilogue = region.ops.filter((o) => !isContractRoot(o));
  const read = epilogue.flatMap((o) => o.operands);
  return isVectorChain(epilogue) && [...read, ...region.outputs.map((o) => o.value)].every((v) => isLaneType(v.type.dtype));
}

/** Epilogues that lanes cannot hold (f16, f64, i64) run as scalars after each sum, or, behind a packed weight, as kernels of their own. */
const emitFusedContraction: Emitter = (asm, op, operands, results) => {
  if (runsOnLanes(op)) return contraction(asm, op, operands, results);
  const k = contractionOf(op);
  return k.root.name.endsWith('Packed') ? emitSequence(asm, op, operands, results) : genericContraction(asm, k, operands, results[0]!);
};

/** Runs a region op by op on one thread, with values in between in scratch: for combinations that have no kernel of their own. */
function emitSequence(asm: Asm, op: Op, operands: readonly Placed[], results: readonly Placed[]): KernelCode {
  const region = op.regions[0]!;
  const inputs = new Map<Value, number>(region.inputs.map((v, i) => [v, i]));
  const outputs = new Map<Value, number>(region.outputs.map((o, i) => [o.value, operands.length + i]));
  const inScratch = new Map<Value, number>();
  let used = 0;
  const place = (v: Value): Placed => {
    const outer = inputs.get(v) ?? outputs.get(v);
    if (outer !== undefined) return [...operands, ...results][outer]!;
    if (!inScratch.has(v)) {
      inScratch.set(v, used);
      used += Math.ceil(bytesOf(v.type) / 64) * 64;
    }
    return { type: v.type, strides: rowMajor(v.type.shape) };
  };
  const steps = region.ops.map((o) => ({ o, code: o.name === 'constant' ? undefined : emitOp(asm, o, o.operands.map(place), o.results.map(place)) }));
  const constants = steps.filter((s) => s.o.name === 'constant').map(({ o }) => {
    const t = tensorAttr(o.attrs, 'value');
    return { value: o.results[0]!, at: asm.data(new Uint8Array(t.data.buffer, t.data.byteOffset, t.data.byteLength)) };
  });
  const inner = Math.max(0, ...steps.map((s) => s.code?.scratchBytes ?? 0));
  return kernel(asm, kernelKey(op, operands, results), operands.length + results.length, 1, used + inner, (f, k) => steps.flatMap(({ o, code }) => {
    if (!code || code.chunks === 0) return [];
    const chunk = f.local('i32');
    const address = (v: Value): E => {
      const outer = inputs.get(v) ?? outputs.get(v);
      const constant = constants.find((c) => c.value === v);
      if (constant) return asm.i32(constant.at);
      return outer === undefined ? asm.plus(f.get(k.scratch), inScratch.get(v)!) : f.get(k.ptrs[outer]!);
    };
    const call = asm.call(code.fn, [f.get(chunk), asm.plus(f.get(k.scratch), used), ...[...o.operands, ...o.results].map(address)]);
    return [f.repeat(chunk, 0, code.chunks, 1, [call])];
  }));
}

/** A convolution that takes the moments of its result along, where its kernel can. */
const emitMomentBlocks: Emitter = (asm, op, operands, results) => {
  const region = op.regions[0]!;
  const [conv] = region.ops as [Op];
  invariant(conv.operands.every((v, i) => v === region.inputs[i]), 'the operands are those of the convolution');
  const k = contractionOf(conv);
  const moments = blockMoments(op, results);
  return moments && runsOnLanes(conv) && holdsBlocks(k, operands, results[0]!, moments) ? packedConv(asm, k, operands, results[0]!, moments) : emitSequence(asm, op, operands, results);
};

const notAStep: Emitter = (_, op) => {
  throw new InternalError(`${op.name} is no kernel`);
};

const byFamily = {
  constant: notAStep,
  map: emitMap,
  reduce: emitReduce,
  contract: contraction,
  conv: contraction,
  window: emitWindow,
  resample: emitResample,
  move: emitMove,
  index: emitIndex,
  scatter: emitScatter,
  scan: emitScan,
  sort: emitSort,
  random: emitRandom,
  region: (asm, op, operands, results, setting) => {
    if (op.name === 'bands') return bandsKernel(asm, op, operands, results[0]!, emitOp);
    if (op.name === 'momentBlocks') return emitMomentBlocks(asm, op, operands, results);
    if (op.name === 'slabs') return slabsKernel(asm, op, operands, results, emitOp);
    return (op.name === 'fused' ? emitFused : notAStep)(asm, op, operands, results, setting);
  },
} as const satisfies Record<OpFamily, Emitter>;
