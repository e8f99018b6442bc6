/** npm run check-plan: plans that the command line wrote pass; a plan that is changed in one place is caught by name; bytes are those counted by hand. */
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Buffer, Compute, Exchange, Plan, Problem } from '../bench/check-plan/plan.ts';
import { planFromJson } from '../passes/tile/json.ts';
import { bytesByTile } from '../passes/tile/report.ts';
import { example, root, tilewright } from './cli-harness.ts';

type Mutable<T> = { -readonly [K in keyof T]: T[K] extends readonly (infer E)[] ? Mutable<E>[] : T[K] extends object ? Mutable<T[K]> : T[K] };

const folder = mkdtempSync(join(tmpdir(), 'tilewright-check-plan-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** Runs the checker. */
function check(...args: string[]): Promise<{ code: number | null; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    const child = execFile(process.execPath, [join(root, 'bench/check-plan.ts'), ...args], { maxBuffer: 1 << 26 }, (_, stdout, stderr) => resolve({ code: child.exitCode, stdout, stderr }));
  });
}

let written = 0;
function write(data: unknown): string {
  const file = join(folder, `changed${written++}.json`);
  writeFileSync(file, JSON.stringify(data));
  return file;
}

async function problemsOf(data: unknown): Promise<readonly Problem[]> {
  const { code, stdout } = await check(write(data), '--json');
  const { ok, problems } = JSON.parse(stdout) as { ok: boolean; problems: Problem[] };
  expect(code).toBe(ok ? 0 : 1);
  return problems;
}

describe('a plan of a training step', { timeout: 60_000 }, () => {
  const file = join(folder, 'plan.json');
  let text = '';
  const plan = (): Mutable<Plan> => JSON.parse(text) as Mutable<Plan>;
  beforeAll(async () => {
    const done = await tilewright(['plan', example, '--tiles', '4', '--tile-memory', '1MiB', '--train', '--batch', '2', '--json', file]);
    expect(done).toMatchObject({ code: 0 });
    text = readFileSync(file, 'utf8');
  });
  const own = (p: Mutable<Plan>): Mutable<Buffer>[] => p.buffers.filter((b) => b.viewOf === undefined && b.bytes > 0);
  const move = (p: Mutable<Plan>, id: number, offset: number): void => {
    p.buffers[id]!.offset = offset;
    for (const v of p.buffers) if (v.viewOf === id) move(p, v.id, offset);
  };
  const exchanges = (p: Mutable<Plan>): Mutable<Exchange>[] => p.steps.filter((s): s is Mutable<Exchange> => s.kind === 'exchange');
  const computes = (p: Mutable<Plan>): Mutable<Compute>[] => p.steps.filter((s): s is Mutable<Compute> => s.kind === 'compute');

  test('passes untouched', async () => {
    const { code, stdout } = await check(file, '--model', example);
    expect(code).toBe(0);
    expect(stdout.trim().split('\n').at(-1)).toMatch(/^plan ok: \d+ steps, \d+ buffers, 4 tiles; /);
  });

  test('takes as many bytes of its fullest tile, at every step, as the planner counts', async () => {
    const { steps } = JSON.parse((await check(file, '--json')).stdout) as { steps: { step: number; most: number; tile: number }[] };
    expect(steps).toHaveLength(plan().steps.length);
    const counted = planFromJson(plan(), file);
    for (const { step, most, tile } of steps) {
      const used = bytesByTile(counted, step);
      expect({ step, most, atTile: used[tile] }).toEqual({ step, most: used.reduce((a, x) => Math.max(a, x), 0), atTile: most });
    }
  });

  test('two tensors that overlap are named, with step and bytes', async () => {
    const p = plan();
    const a = own(p).find((b) => b.kind === 'activation')!;
    const b = own(p).find((x) => x.kind === 'gather' && x.id > a.id && x.birth <= a.death && a.birth <= x.death)!;
    move(p, b.id, a.offset);
    const found = (await problemsOf(p)).find((x) => x.message.includes('overlap') && x.message.includes(`buffer ${a.id} (${a.value}, activation)`));
    expect(found?.message).toContain(`buffer ${b.id} (${b.value}, gather)`);
    expect(found).toMatchObject({ step: Math.max(a.birth, b.birth), bytes: Math.min(a.bytes, b.bytes) });
  });

  test('a tensor that is freed too early is named, with the step that still reads it', async () => {
    const p = plan();
    const b = own(p).find((x) => x.kind === 'activation' && x.death > x.birth + 5)!;
    const reader = b.death;
    b.death -= 1;
    const freed = (await problemsOf(p)).find((x) => x.message.includes('was freed'));
    expect(freed?.message).toContain(`buffer ${b.id} (${b.value}`);
    expect(freed).toMatchObject({ step: reader });
  });

  test('each copy that is missing is named by what it should have filled', async () => {
    const missing = exchanges(plan()).flatMap((s, at) => s.copies.map((c, k) => ({ at, k, to: c.to, index: s.index })));
    for (const m of [missing[0]!, missing[missing.length >> 1]!]) {
      const p = plan();
      exchanges(p)[m.at]!.copies.splice(m.k, 1);
      const found = await problemsOf(p);
      expect(found.map((x) => x.message).join('\n')).toContain(`buffer ${m.to} (${p.buffers[m.to]!.value}`);
      expect(found.some((x) => x.message.includes('nothing has filled it'))).toBe(true);
      expect(found.every((x) => (x.step ?? 0) >= m.index || x.message.includes('never filled'))).toBe(true);
    }
  });

  test('a vertex that is missing is named by what it should have written', async () => {
    const p = plan();
    const step = computes(p).find((s) => s.part === 'whole' && p.buffers[s.writes[0]!.buffer]!.viewOf === undefined)!;
    const [read, made] = [step.reads.map((a) => a.buffer), step.writes[0]!.buffer];
    step.writes = step.writes.slice(1);
    expect(read).not.toContain(made);
    expect((await problemsOf(p)).map((x) => x.message).join('\n')).toContain(`buffer ${made} (${p.buffers[made]!.value}`);
  });

  test('a copy of part of a tensor is named with tile and bytes', async () => {
    const p = plan();
    const { to } = exchanges(p)[0]!.copies[0]!;
    const from = p.buffers[exchanges(p)[0]!.copies[0]!.from]!;
    const cut = p.cuts[from.spread.axes[0]!]!;
    // The last part holds nothing, so that what it held is nowhere.
    from.spread.axes = [p.cuts.push({ by: [...cut.by], combs: [...cut.combs.slice(0, -1).map((c) => [...c]), [0, 0, 1]] }) - 1];
    const found = (await problemsOf(p)).find((x) => x.message.includes(`no part of buffer ${from.id}`));
    expect(found).toMatchObject({ step: 0, buffer: to });
    expect(found!.bytes).toBeGreaterThan(0);
  });

  test('a value that was overwritten before its last reader is named', async () => {
    const p = plan();
    const view = p.buffers.find((b) => b.viewOf !== undefined && p.buffers[b.viewOf]!.kind === 'activation' && computes(p).some((s) => s.writes.some((w) => w.buffer === b.id)) && computes(p).some((s) => s.reads.some((r) => r.buffer === b.id)))!;
    const writer = computes(p).find((s) => s.writes.some((w) => w.buffer === view.id))!;
    const later = computes(p).find((s) => s.index > writer.index && s.reads.some((r) => r.buffer === view.id))!;
    later.reads.find((r) => r.buffer === view.id)!.buffer = view.viewOf!;
    expect((await problemsOf(p)).map((x) => x.message).join('\n')).toContain(`(${view.value}, activation) was written over it`);
  });

  test.each(['always', 'code', 'peak', 'gaps', 'total'] as const)('the figure memory.%s has to be right to the byte', async (name) => {
    const p = plan();
    p.memory[name] += 1;
    expect((await problemsOf(p)).map((x) => x.message).join()).toContain(`memory.${name} says ${p.memory[name]}`);
  });

  test('a buffer whose slot is too small is named with its largest slice', async () => {
    const p = plan();
    const b = own(p).find((x) => x.bytes > p.grain)!;
    const right = b.bytes;
    b.bytes -= p.grain;
    expect((await problemsOf(p)).find((x) => x.buffer === b.id)).toMatchObject({ bytes: right });
  });

  test('a plan over its limit says by how many bytes', async () => {
    const p = plan();
    p.memory.limit = p.memory.total - 8;
    expect(await problemsOf(p)).toEqual([expect.objectContaining({ step: p.memory.peakStep, bytes: 8 })]);
  });

  test('step numbers have to ascend by one', async () => {
    const p = plan();
    p.steps.splice(1, 1);
    expect((await problemsOf(p)).map((x) => x.message).join()).toContain('stands where step 1 is expected');
  });

  test('what the schema does not allow is named', async () => {
    const { samples: _, ...rest } = plan() as Mutable<Plan> & { samples: number };
    expect((await problemsOf(rest)).map((x) => x.message).join()).toContain("required property 'samples'");
    expect((await problemsOf({ ...plan(), more: 1 })).map((x) => x.message).join()).toContain('(more)');
  });

  test('a plan of another model is named, a missing file is refused', async () => {
    const other = await check(file, '--model', join(root, 'package.json'));
    expect(other).toMatchObject({ code: 1, stdout: expect.stringContaining('made for another model: CNTKGraph') as string });
    expect(await check(join(folder, 'none.json'))).toMatchObject({ code: 2, stderr: expect.stringContaining('none.json cannot be read as a plan') as string });
    expect(await check()).toMatchObject({ code: 2, stderr: expect.stringContaining('usage: npm run check-plan') as string });
  });
});

describe('a plan written by hand', () => {
  /** Four numbers on two tiles are brought together on tile 0, where a vertex makes four more. */
  const spread = (parts: number, cut: number): object => ({ base: 0, dims: parts === 1 ? [] : [{ name: 'x', parts, stride: 1 }], axes: [cut] });
  const buffer = (id: number, kind: string, parts: number, bytes: number, offset: number, birth: number, death: number): object => ({ id, value: `v${id}`, source: [], kind, dtype: 'f32', shape: [4], spread: spread(parts, parts === 1 ? 1 : 0), width: 1, bytes, offset, birth, death });
  const cycles = { compute: 1, exchange: 1, sync: 1 };
  const plan = {
    version: 1, model: 'hand', graph: '', target: 'two', tiles: 2, bytesPerTile: 256, grain: 8, samples: 1, vertexTypeBytes: 10,
    cuts: [{ by: [0], combs: [[0, 2, 1], [2, 2, 1]] }, { by: [], combs: [[0, 4, 1]] }],
    buffers: [buffer(0, 'input', 2, 8, 0, 0, 0), buffer(1, 'gather', 1, 16, 8, 0, 1), buffer(2, 'output', 1, 16, 24, 1, 1)],
    steps: [
      { kind: 'exchange', index: 0, copies: [{ from: 0, to: 1 }], bytes: 16, largest: 16, cycles, code: 3 },
      { kind: 'compute', index: 1, op: 0, part: 'whole', name: 'y', source: [], root: 'map', vertex: 'map f32', division: { base: 0, dims: [], ranges: {} }, reads: [{ buffer: 1, slice: spread(1, 1) }], writes: [{ buffer: 2, slice: spread(1, 1) }], cycles, code: 4, macs: 0 },
    ],
    memory: { always: 0, code: 17, peak: 32, peakStep: 1, gaps: 8, total: 57, limit: 250 }, notes: [],
  };

  test('takes the bytes that were counted by hand', async () => {
    const { code, stdout } = await check(write(plan), '--json');
    expect(code).toBe(0);
    const facts = JSON.parse(stdout) as { memory: object; steps: object[] };
    expect(facts.memory).toEqual(plan.memory);
    // Step 0: 8 + 16 bytes of tile 0, 8 of tile 1; step 1: 16 + 16 of tile 0.
    expect(facts.steps).toEqual([{ step: 0, most: 24, tile: 0, slots: 24 }, { step: 1, most: 32, tile: 0, slots: 32 }]);
  });

  test('a vertex on a tile that does not hold its operand is named', async () => {
    const p = structuredClone(plan);
    (p.steps[1] as { division: { base: number } }).division.base = 1;
    expect(await problemsOf(p)).toContainEqual(expect.objectContaining({ message: 'step 1 (y) reads elements of buffer 1 (v1, gather) on tile 1 that do not lie there', tile: 1, step: 1, buffer: 1 }));
  });
});
