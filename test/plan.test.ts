/** Plans keep what graphs compute: tile programs run on the interpreter over the planned addresses, and as wasm. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { withBoundInputs } from '../bench/onnx-case.ts';
import { artifactOf } from '../cli/driver/compile.ts';
import { importModel } from '../frontend/index.ts';
import { evaluate } from '../ir/evaluate.ts';
import type { Graph } from '../ir/graph.ts';
import { parseGraph } from '../ir/parse.ts';
import { reshapeStrides } from '../ir/strides.ts';
import type { TileProgram } from '../ir/tile.ts';
import { dtypes, sizeOf, type Tensor } from '../ir/type.ts';
import { denseStrides, orderForReshape } from '../passes/layout.ts';
import { plan } from '../passes/plan.ts';
import { runPipeline } from '../passes/pipeline.ts';
import { load, readSafetensors } from '../runtime/index.ts';
import { testTarget } from './ir/target.ts';
import { generator } from '../ir/generator.ts';
import { numbersOf, randomInputs } from './ir/tensors.ts';
import { runProgram } from './run-program.ts';

type Numbers = readonly number[];

/** Outputs as numbers: of the tile program on the interpreter (one run starts and ends there), and of the last of `runs` runs as wasm on 1 and 2 threads. */
async function run(graph: Graph, inputs: Readonly<Record<string, Numbers>>, runs = 1): Promise<Record<string, Numbers>[]> {
  const tensors = Object.fromEntries(graph.inputs.map((v) => {
    const data = new dtypes[v.type.dtype].array(sizeOf(v.type.shape));
    inputs[v.name!]!.forEach((x, i) => (data[i] = (data instanceof BigInt64Array ? BigInt(x) : x) as never));
    return [v.name!, { ...v.type, data } satisfies Tensor];
  }));
  const found: Record<string, Numbers>[] = [];
  if (runs === 1) found.push(Object.fromEntries([...runProgram(plan(graph, testTarget), tensors)].map(([name, t]) => [name, numbersOf(t)])));
  const artifact = await artifactOf({ graph, imported: { bound: {}, dims: {}, warnings: [] } });
  for (const threads of [1, 2]) {
    await using session = await load(artifact, { threads });
    let last: Record<string, Tensor> = {};
    for (let i = 0; i < runs; i++) last = await session.run(tensors);
    found.push(Object.fromEntries(Object.entries(last).map(([name, t]) => [name, numbersOf(t)])));
  }
  return found;
}

const copies = (program: TileProgram): number => program.entries[0]!.steps.filter((s) => s.kind === 'kernel' && s.op.name === 'copy').length;

interface Case {
  readonly name: string;
  readonly text: string;
  readonly inputs: Readonly<Record<string, Numbers>>;
  readonly want: Readonly<Record<string, Numbers>>;
  /** Copies that the plan makes. */
  readonly copies?: number;
  /** Runs of one session before its outputs are read; 1 unless given. */
  readonly runs?: number;
}

const x23 = [1, -2, 3, -4, 5, -6];
const cases: readonly Case[] = [
  {
    name: 'operands of a concat are computed inside it',
    text: `graph @g(%x: f32[2,3]) { %a = neg %x : f32[2,3] %b = abs %x : f32[2,3] %c = concat %a, %b {axis=1} : f32[2,6] %y = neg %c : f32[2,6] return "y" = %y }`,
    inputs: { x: x23 }, want: { y: [1, -2, 3, -1, -2, -3, -4, 5, -6, -4, -5, -6] }, copies: 0,
  },
  {
    name: 'a concat of concats',
    text: `graph @g(%x: f32[2,3]) {
      %a = neg %x : f32[2,3] %b = abs %x : f32[2,3] %c = concat %a, %b {axis=0} : f32[4,3] %d = relu %x : f32[2,3]
      %e = concat %d, %c {axis=0} : f32[6,3] %y = neg %e : f32[6,3] return "y" = %y }`,
    inputs: { x: x23 }, want: { y: [-1, -0, -3, -0, -5, -0, 1, -2, 3, -4, 5, -6, -1, -2, -3, -4, -5, -6] }, copies: 0,
  },
  {
    name: 'a chain of concats of all results so far grows in one buffer',
    text: `graph @g(%x: f32[1,2]) {
      %a = neg %x : f32[1,2] %b = abs %x : f32[1,2] %ab = concat %a, %b {axis=1} : f32[1,4] %s = reduceSum %ab {axes=[1]} : f32[1] %t = reshape %s {shape=[1,1]} : f32[1,1] %c = add %t, %x : f32[1,2]
      %abc = concat %a, %b, %c {axis=1} : f32[1,6] %u = reduceMax %abc {axes=[1]} : f32[1] %v = reshape %u {shape=[1,1]} : f32[1,1] %d = mul %v, %x : f32[1,2]
      %abcd = concat %a, %b, %c, %d {axis=1} : f32[1,8] %y = neg %abcd : f32[1,8] return "y" = %y, "s" = %s }`,
    // a = (-1, 4), b = (1, 4), s = 8, c = (9, 4), u = 9, d = (9, -36)
    inputs: { x: [1, -4] }, want: { y: [1, -4, -1, -4, -9, -4, -9, 36], s: [8] }, copies: 0,
  },
  {
    name: 'a concat that is an output, of an input, of the same value twice and of another output',
    text: `graph @g(%x: f32[2]) { %a = neg %x : f32[2] %y = concat %x, %a, %a {axis=0} : f32[6] %z = exp %x : f32[2] %w = concat %z, %x {axis=0} : f32[4] return "y" = %y, "z" = %z, "w" = %w }`,
    inputs: { x: [0, 0] }, want: { y: [0, 0, -0, -0, -0, -0], z: [1, 1], w: [1, 1, 0, 0] },
  },
  {
    name: 'a reshape of a transposed value needs its elements in the new order',
    text: `graph @g(%x: f32[2,3]) { %a = neg %x : f32[2,3] %t = transpose %a {perm=[1,0]} : f32[3,2] %r = reshape %t {shape=[6]} : f32[6] %y = neg %r : f32[6] return "y" = %y, "a" = %a }`,
    inputs: { x: x23 }, want: { y: [1, -4, -2, 5, 3, -6], a: [-1, 2, -3, 4, -5, 6] },
  },
  {
    name: 'a slice with a step, of a transposed value, is a view',
    text: `graph @g(%x: f32[2,3]) { %a = neg %x : f32[2,3] %t = transpose %a {perm=[1,0]} : f32[3,2] %s = slice %t {starts=[0,1], sizes=[2,1], steps=[2,1]} : f32[2,1] %y = neg %s : f32[2,1] return "y" = %y }`,
    inputs: { x: x23 }, want: { y: [-4, -6] }, copies: 0,
  },
  {
    name: 'maps overwrite an operand only where nothing reads it again, not even through a view',
    text: `graph @g(%x: f32[2,3]) {
      %a = neg %x : f32[2,3] %v = transpose %a {perm=[1,0]} : f32[3,2] %b = exp %a : f32[2,3] %c = mul %b, %b : f32[2,3] %d = sub %c, %b : f32[2,3]
      %e = reduceSum %d {axes=[0,1]} : f32[] %y = neg %v : f32[3,2] return "y" = %y, "e" = %e }`,
    inputs: { x: [0, 0, 0, 0, 0, 0] }, want: { y: [0, 0, 0, 0, 0, 0], e: [0] },
  },
  {
    name: 'a value that is output twice, and an output that is an input',
    text: `graph @g(%x: f32[2]) { %a = neg %x : f32[2] return "y" = %a, "z" = %a, "x2" = %x, "x3" = %x }`,
    inputs: { x: [1, 2] }, want: { y: [-1, -2], z: [-1, -2], x2: [1, 2], x3: [1, 2] },
  },
  {
    name: 'an output that is a view of another, and one that is a constant',
    text: `graph @g(%x: f32[2,3]) { %a = neg %x : f32[2,3] %t = transpose %a {perm=[1,0]} : f32[3,2] %k = constant {value=f32[2](7, 8)} : f32[2] return "t" = %t, "a" = %a, "k" = %k }`,
    inputs: { x: x23 }, want: { t: [-1, 4, 2, -5, -3, 6], a: [-1, 2, -3, 4, -5, 6], k: [7, 8] },
  },
  {
    name: 'a loop whose carried values change places',
    text: `graph @g(%n: i64[], %x: f32[2], %y: f32[2]) {
      %go = constant {value=bool[](1)} : bool[]
      %p, %q = loop %n, %go, %x, %y {trips=-1, carried=2, scans=0} (%i: i64[], %a: f32[2], %b: f32[2]) {
        %t = constant {value=bool[](1)} : bool[]
        return %t, %b, %a
      } : f32[2], f32[2]
      return "p" = %p, "q" = %q, "x" = %x }`,
    inputs: { n: [3], x: [1, 2], y: [3, 4] }, want: { p: [3, 4], q: [1, 2], x: [1, 2] },
  },
  {
    name: 'a loop that adds the carried values up and stacks them (Fibonacci)',
    text: `graph @g(%x: f32[], %y: f32[]) {
      %n = constant {value=i64[](6)} : i64[] %go = constant {value=bool[](1)} : bool[]
      %p, %q, %s = loop %n, %go, %x, %y {trips=6, carried=2, scans=1} (%i: i64[], %a: f32[], %b: f32[]) {
        %t = constant {value=bool[](1)} : bool[] %c = add %a, %b : f32[]
        return %t, %b, %c, %a
      } : f32[], f32[], f32[6]
      return "p" = %p, "q" = %q, "s" = %s }`,
    inputs: { x: [0], y: [1] }, want: { p: [8], q: [13], s: [0, 1, 1, 2, 3, 5] },
  },
  {
    name: 'a loop that transposes what it carries, over a captured value',
    text: `graph @g(%x: f32[3,3], %k: f32[3,3]) {
      %n = constant {value=i64[](3)} : i64[] %go = constant {value=bool[](1)} : bool[]
      %p, %q = loop %n, %go, %x, %x, %k {trips=3, carried=2, scans=0} (%i: i64[], %a: f32[3,3], %b: f32[3,3], %c: f32[3,3]) {
        %t = constant {value=bool[](1)} : bool[] %u = transpose %a {perm=[1,0]} : f32[3,3] %v = add %b, %c : f32[3,3]
        return %t, %u, %v
      } : f32[3,3], f32[3,3]
      return "p" = %p, "q" = %q }`,
    inputs: { x: [1, 2, 3, 4, 5, 6, 7, 8, 9], k: [1, 0, 0, 0, 1, 0, 0, 0, 1] }, want: { p: [1, 4, 7, 2, 5, 8, 3, 6, 9], q: [4, 2, 3, 4, 8, 6, 7, 8, 12] },
  },
  {
    name: 'a loop whose condition is a carried value of the round before',
    text: `graph @g(%x: i64[]) {
      %n = constant {value=i64[](10)} : i64[] %go = constant {value=bool[](1)} : bool[]
      %f, %p = loop %n, %go, %go, %x {trips=-1, carried=2, scans=0} (%i: i64[], %c: bool[], %a: i64[]) {
        %two = constant {value=i64[](2)} : i64[] %below = lt %i, %two : bool[] %b = add %a, %two : i64[]
        return %c, %below, %b
      } : bool[], i64[]
      return "p" = %p, "f" = %f }`,
    // Rounds 0, 1 and 2 see a true flag; round 2 makes it false, so round 3 is the last.
    inputs: { x: [1] }, want: { p: [9], f: [0] },
  },
  ...[1, 0].map((flag): Case => ({
    name: `an if over captured values, one of them read again afterwards (${flag})`,
    text: `graph @g(%f: bool[], %x: f32[2], %y: f32[2]) {
      %a = neg %x : f32[2]
      %r, %s = if %f, %a, %y (%p: f32[2], %q: f32[2]) { %u = mul %p, %q : f32[2] return %u, %p } (%p: f32[2], %q: f32[2]) { %u = neg %p : f32[2] %v = add %u, %q : f32[2] return %q, %v } : f32[2], f32[2]
      %z = add %r, %a : f32[2]
      return "z" = %z, "s" = %s }`,
    inputs: { f: [flag], x: [1, 2], y: [3, 4] }, want: flag ? { z: [-4, -10], s: [-1, -2] } : { z: [2, 2], s: [4, 6] },
  })),
  {
    name: 'state that is updated from other state, as it was before the run',
    text: `graph @g(%x: f32[2]) state(%a: f32[2] = "a" (1, 2), %b: f32[2] = "b" (3, 4), %m: f32[2,2] = "m" (1, 2, 3, 4)) {
      %s = add %a, %x : f32[2] %t = transpose %m {perm=[1,0]} : f32[2,2] return "s" = %s, "b" = %b, "m" = %m, state(%a = %b, %b = %a, %m = %t) }`,
    // Before the fourth run a and b have changed places three times, and m has been transposed three times.
    inputs: { x: [10, 20] }, want: { s: [13, 24], b: [1, 2], m: [1, 3, 2, 4] }, runs: 4,
  },
];

describe('a plan of a graph', () => {
  it.each(cases)('$name', async ({ text, inputs, want, copies: expected, runs }) => {
    const graph = parseGraph(text);
    for (const got of await run(graph, inputs, runs)) expect(got).toEqual(want);
    if (expected !== undefined) expect(copies(plan(graph, testTarget))).toBe(expected);
  });
});

/** State of which a fused op computes the new value; `next` is the same by plain arithmetic. */
const reduced: readonly { readonly name: string; readonly text: string; readonly kind: string; readonly inPlace: boolean; readonly next: (s: Numbers, x: Numbers) => number[] }[] = [
  {
    name: 'each row less its sum',
    text: `graph @g(%x: f32[3,3]) state(%s: f32[3,3] = "s" (1, 2, 3, 4, 5, 6, 7, 8, 9)) {
      %z = neg %s : f32[3,3] %a = add %s, %x : f32[3,3] %t = reduceSum %a {axes=[1]} : f32[3] %r = reshape %t {shape=[3,1]} : f32[3,1] %y = sub %s, %r : f32[3,3] return "negative" = %z, state(%s = %y) }`,
    kind: 'row', inPlace: true,
    next: (s, x) => s.map((v, at) => v - [0, 1, 2].reduce((sum, j) => sum + s[3 * Math.floor(at / 3) + j]! + x[3 * Math.floor(at / 3) + j]!, 0)),
  },
  {
    name: 'sums of rows that are added to it',
    text: `graph @g(%x: f32[3,3]) state(%s: f32[3] = "s" (1, 2, 3)) {
      %z = neg %s : f32[3] %a = mul %x, %x : f32[3,3] %t = reduceSum %a {axes=[1]} : f32[3] %y = add %t, %s : f32[3] return "negative" = %z, state(%s = %y) }`,
    kind: 'reduce', inPlace: true,
    next: (s, x) => s.map((v, i) => [0, 1, 2].reduce((sum, j) => sum + x[3 * i + j]! ** 2, v)),
  },
  {
    name: 'sums of rows that all of it is a factor of',
    text: `graph @g(%x: f32[3,3]) state(%s: f32[3] = "s" (1, 2, 3)) {
      %z = neg %s : f32[3] %a = sub %x, %s : f32[3,3] %q = mul %a, %a : f32[3,3] %y = reduceSum %q {axes=[1]} : f32[3] return "negative" = %z, state(%s = %y) }`,
    kind: 'reduce', inPlace: false,
    next: (s, x) => s.map((_, i) => [0, 1, 2].reduce((sum, j) => sum + (x[3 * i + j]! - s[j]!) ** 2, 0)),
  },
  {
    name: 'its product with the input, less the input',
    text: `graph @g(%x: f32[3,3]) state(%s: f32[3,3] = "s" (1, 2, 3, 4, 5, 6, 7, 8, 9)) {
      %z = neg %s : f32[3,3] %p = contract %x, %s {spec="mk,kn->mn"} : f32[3,3] %y = sub %p, %x : f32[3,3] return "negative" = %z, state(%s = %y) }`,
    kind: 'contract', inPlace: false,
    next: (s, x) => s.map((_, at) => [0, 1, 2].reduce((sum, k) => sum + x[3 * Math.floor(at / 3) + k]! * s[3 * k + (at % 3)]!, -x[at]!)),
  },
];

describe('state that a fused op replaces', () => {
  it.each(reduced)('$name', async ({ text, kind, inPlace, next }) => {
    const x = [0.5, -1, 2, 1, 0.25, -0.5, 1, 1, -2];
    const graph = runPipeline(parseGraph(text), testTarget);
    const fusions = graph.ops.filter((op) => op.attrs['kind'] === kind);
    expect(fusions.map((op) => op.results.length)).toEqual([1]);
    const { placements } = plan(graph, testTarget);
    expect(placements.get(fusions[0]!.results[0]!)!.buffer === placements.get(graph.state[0]!.value)!.buffer).toBe(inPlace);
    const artifact = await artifactOf({ graph, imported: { bound: {}, dims: {}, warnings: [] } });
    await using session = await load(artifact, { threads: 2 });
    let s: Numbers = numbersOf(graph.state[0]!.init as Tensor);
    for (let run = 0; run < 3; run++) {
      const { negative } = await session.run({ x: Float32Array.from(x) });
      expect(numbersOf(negative as Tensor)).toEqual(s.map((v) => -v));
      s = next(s, x);
    }
  });
});

const shared = join(import.meta.dirname, '../../shared/models');
const models = existsSync(shared) ? readdirSync(shared).filter((f) => f.endsWith('.onnx')) : [];

/** The ops of the fused graph compute the same on both sides: any difference is the plan's. */
async function planOf(model: string, recorded: Readonly<Record<string, Tensor>> | undefined): Promise<void> {
  const shapes = Object.fromEntries(Object.entries(recorded ?? {}).map(([name, t]) => [name, t.shape]));
  const { result: imported } = await withBoundInputs(recorded ?? {}, (values) => importModel(model, { shapes, values }).graph);
  const graph = runPipeline(imported, testTarget);
  const random = randomInputs(graph, generator(7));
  const inputs = Object.fromEntries(graph.inputs.map((v) => [v.name!, recorded?.[v.name!] ?? random.get(v)!]));
  const program = plan(graph, testTarget);
  const got = runProgram(program, inputs);
  for (const [name, want] of evaluate(graph, inputs).outputs) expect(got.get(name), name).toEqual(want);
  expect(program.memory.temps).toBeGreaterThanOrEqual(program.memory.liveBound);
}

describe('a plan of a real model', () => {
  it('examples/mnist_cntk.onnx', () => planOf(join(import.meta.dirname, '../examples/mnist_cntk.onnx'), undefined));
  it.skipIf(models.length === 0).each(models.length > 0 ? models : ['models (skipped: ../shared/models is not there)'])('%s', { timeout: 120_000 }, async (file) => {
    const tensors = await readSafetensors(readFileSync(join(shared, file.replace(/onnx$/, 'safetensors'))));
    const recorded = Object.fromEntries([...tensors].flatMap(([key, t]) => (key.startsWith('input/') ? [[key.slice(6), t]] : [])));
    await planOf(join(shared, file), recorded);
  });
});

describe('the copy that a reshape asks for', () => {
  it('keeps channels side by side through a channel shuffle', () => {
    // Two groups of 58 channels, transposed, over pixels of 116 channels.
    expect(orderForReshape([1, 58, 2, 28, 28], [90944, 1, 58, 3248, 116], [1, 116, 28, 28])).toEqual([0, 3, 4, 1, 2]);
    // Heads of attention become one axis of features again.
    expect(orderForReshape([1, 197, 12, 64], [151296, 64, 12608, 1], [1, 197, 768])).toEqual([0, 1, 2, 3]);
  });

  it('can be viewed in the new shape, in every order of its source', () => {
    const random = generator(5);
    const pick = (n: number): number => Math.floor(random() * n);
    for (let round = 0; round < 300; round++) {
      const from = Array.from({ length: 1 + pick(5) }, () => [1, 2, 3, 4, 6][pick(5)]!);
      const size = sizeOf(from);
      const to: number[] = [];
      for (let left = size; left > 1 || random() < 0.3;) {
        const factors = [1, 2, 3, 4, 6, 12, left].filter((f) => left % f === 0);
        const f = factors[pick(factors.length)]!;
        to.push(f);
        left /= f;
      }
      const order = from.map((_, axis) => axis).sort(() => random() - 0.5);
      const copied = denseStrides(from, orderForReshape(from, denseStrides(from, order), to));
      const viewed = reshapeStrides(from, copied, to);
      expect(viewed && places(to, viewed), `${from.join()} to ${to.join()}`).toEqual(places(from, copied));
    }
  });
});

/** Where the elements of a tensor lie, in row-major order. */
function places(shape: readonly number[], strides: readonly number[]): number[] {
  return shape.reduce<number[]>((list, d, axis) => list.flatMap((p) => Array.from({ length: d }, (_, i) => p + i * strides[axis]!)), [0]);
}
