/** Writes at run-time indices. One chunk: updates of one element follow each other in row-major order. */
import { invariant } from '../../ir/diagnostic.ts';
import { num, str } from '../../ir/op.ts';
import type { Placed } from '../../ir/tile.ts';
import { dtypes, sizeOf } from '../../ir/type.ts';
import type { E, Fn } from './asm.ts';
import { copyParts, rawType } from './copy.ts';
import { loadElement, normalize, storeElement } from './dtype.ts';
import { byteSteps, nothing, wholeCut } from './elements.ts';
import { resolveIndex } from './gather.ts';
import { kernelKey, type Emitter } from './kernel.ts';
import { scalarLanes } from './lanes.ts';
import { emitNest, kernel, type NestDim } from './nest.ts';

export const emitScatter: Emitter = (asm, op, operands, results) => {
  const [x, indices, updates] = operands as [Placed, Placed, Placed];
  const [y] = results;
  invariant(y !== undefined, `${op.name} has a result`);
  if (sizeOf(y.type.shape) === 0) return nothing;
  const elements = op.name === 'scatterElements';
  const [ys, is, us] = [byteSteps(y), byteSteps(indices), byteSteps(updates)];
  const lead = indices.type.shape.length - 1;
  const depth = elements ? 1 : indices.type.shape[lead]!;
  const axis = elements ? num(op.attrs, 'axis') : 0;
  // Over the updates; steps of indices, updates, and of what the indices leave open in y.
  const dims = updates.type.shape.map((size, i): NestDim => {
    const ofY = elements ? (i === axis ? 0 : ys[i]!) : i < lead ? 0 : ys[i - lead + depth]!;
    return { name: `d${i}`, size, steps: [elements || i < lead ? is[i]! : 0, us[i]!, ofY] };
  });
  dims.push({ name: 'one', size: 1, steps: [0, 0, 0] });
  const copy = copyParts(asm, dtypes[y.type.dtype].bytes, y.type.shape.map((size, i): NestDim => ({ name: `d${i}`, size, steps: [byteSteps(x)[i]!, ys[i]!] })));
  return kernel(asm, kernelKey(op, operands, results), 4, 1, 0, (f, k) => {
    const [px, pi, pu, py] = k.ptrs;
    const own = f.local('i32');
    const copies = copy.map((p) => f.repeat(own, 0, p.cut.chunks, 1, p.emit(f, own, [px!, py!], k.scratch)));
    const code = [f.if(asm.m.i32.ne(f.get(px!), f.get(py!)), copies)];
    if (updates.type.shape.includes(0)) return code;
    return [...code, ...emitNest(f, dims, wholeCut(dims), k.chunk, [pi!, pu!, py!], {
      row({ ptrs }) {
        let target = f.get(ptrs[2]!);
        for (let j = 0; j < depth; j++) {
          const index = loadElement(asm, indices.type.dtype, asm.plus(f.get(ptrs[0]!), elements ? 0 : j * is[lead]!));
          const at = elements ? axis : j;
          target = asm.add(target, asm.times(resolveIndex(f, indices.type.dtype, index, y.type.shape[at]!), ys[at]!));
        }
        const place = f.local('i32');
        return [f.set(place, target), write(f, str(op.attrs, 'reduction'), y, () => f.get(place), () => f.get(ptrs[1]!))];
      },
    })];
  });
};

function write(f: Fn, reduction: string, y: Placed, place: () => E, update: () => E): E {
  const { asm } = f;
  const { dtype } = y.type;
  const raw = rawType(dtypes[dtype].bytes);
  if (reduction === 'none') return storeElement(asm, raw, place(), loadElement(asm, raw, update()));
  const l = scalarLanes(f, dtype, false);
  const [old, x] = [loadElement(asm, dtype, place()), loadElement(asm, dtype, update())];
  const joined = ((): E => {
    switch (reduction) {
      case 'add': return l.add(old, x);
      case 'mul': return l.mul(old, x);
      case 'min': return l.min(old, x);
      case 'max': return l.max(old, x);
    }
    invariant(false, `there is no reduction ${reduction}`);
  })();
  return storeElement(asm, dtype, place(), normalize(asm, dtype, joined));
}
