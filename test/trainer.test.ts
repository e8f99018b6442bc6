/** Trainers: checkpoints and what is wrong with them, resuming, weights in the ONNX file, losses that are not finite. */
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { openPeer } from '../cli/peers.ts';
import { messages, type TensorProto } from '../frontend/onnx/proto.ts';
import { NonFiniteState } from '../runtime/finite.ts';
import { NonFiniteLoss, trainerOver, type Trainer } from '../runtime/trainer.ts';
import { encodeModel, external, floats, type TestModel } from './onnx-encode.ts';
import { batch, bits, referenceEngine, spread, tinyBatch, tinyModel } from './trainer-harness.ts';

const folder = mkdtempSync(join(tmpdir(), 'trainer-'));
afterAll(() => rmSync(folder, { recursive: true }));
let places = 0;
const place = (): string => join(folder, String(places++));
const trainer = (lr = 0.05): Promise<Trainer> => trainerOver(referenceEngine(), { lr });

async function train(t: Trainer, from: number, to: number): Promise<number[]> {
  const losses: number[] = [];
  for (let k = from; k < to; k++) losses.push((await t.trainStep(tinyBatch(k))).loss);
  return losses;
}

describe('a trainer', () => {
  it('lowers the loss and counts updates', async () => {
    const t = await trainer();
    const losses = await train(t, 0, 20);
    expect(losses.at(-1)!).toBeLessThan(losses[0]! / 2);
    expect(t.step).toBe(20);
  });

  it('evaluates without changing anything', async () => {
    const t = await trainer();
    const before = bits((await t.checkpoint()).state);
    const { logits } = await t.evaluate({ x: tinyBatch(0).x });
    expect(logits!.shape).toEqual([batch, 2]);
    expect(bits((await t.checkpoint()).state)).toEqual(before);
  });

  it('takes and gives weights', async () => {
    const t = await trainer();
    await t.setParameters({ b2: Float32Array.of(3, 4) });
    expect(Array.from<number | bigint>((await t.parameters()).get('b2')!.data as ArrayLike<number | bigint>)).toEqual([3, 4]);
    expect([...(await t.parameters()).keys()]).toEqual(['w1', 'b1', 'w2', 'b2']);
    await expect(t.setParameters({ b3: Float32Array.of(1) })).rejects.toThrow(/no trained weight "b3"/);
    await expect(t.setParameters({ b2: Float32Array.of(1) })).rejects.toThrow(/"b2" is given as f32\[2\] with 1 elements/);
  });

  it('evaluates with averaged weights, and puts the weights back', async () => {
    const t = await trainerOver(referenceEngine(tinyModel, { loss: { kind: 'crossEntropy' }, optimizer: { kind: 'sgd', ema: 0.9 } }), { lr: 0.1 });
    await train(t, 0, 3);
    const { state } = await t.checkpoint();
    const inside = await t.averaged(() => t.parameters());
    expect(inside.get('w1')!.data).toEqual(state.get('w1.average')!.data);
    expect(bits((await t.checkpoint()).state)).toEqual(bits(state));
    await expect((await trainer()).averaged(() => Promise.resolve())).rejects.toThrow(/no moving averages/);
  });
});

describe('checkpoints', () => {
  it('resume with the same bits as if the run had never stopped', async () => {
    const straight = await trainer();
    await train(straight, 0, 20);
    const ck = place();
    const first = await trainer();
    await train(first, 0, 10);
    await first.save(ck, { position: '10' });
    const second = await trainer();
    expect(await second.restore(ck)).toEqual({ position: '10' });
    expect(second.step).toBe(10);
    await train(second, 10, 20);
    expect(bits((await second.checkpoint()).state)).toEqual(bits((await straight.checkpoint()).state));
  });

  it('keep the one before, and nothing else', async () => {
    const ck = place();
    const t = await trainer();
    for (let k = 0; k < 4; k++) {
      await train(t, k, k + 1);
      await t.save(ck);
    }
    expect(readdirSync(ck)).toEqual(['step-000000003.safetensors', 'step-000000004.safetensors']);
  });

  /** A folder with two checkpoints, the newest of which `damage` has changed. */
  async function damaged(damage: (bytes: Buffer) => Uint8Array): Promise<{ ck: string; newest: string; before: string }> {
    const ck = place();
    const t = await trainer();
    await train(t, 0, 1);
    const before = await t.save(ck);
    await train(t, 1, 2);
    const newest = await t.save(ck);
    writeFileSync(newest, damage(readFileSync(newest)));
    return { ck, newest, before };
  }

  it.each<[string, (bytes: Buffer) => Uint8Array]>([
    ['cut off', (b) => b.subarray(0, b.length - 10)],
    ['empty', () => new Uint8Array()],
    ['with a bit turned in its data', (b) => b.with(b.length - 3, b.at(-3)! ^ 1)],
    ['with a bit turned in its header', (b) => Buffer.from(b.toString('latin1').replace('"step":"2"', '"step":"3"'), 'latin1')],
  ])('that are %s are refused by name, and the one before is offered', async (_, damage) => {
    const { ck, newest, before } = await damaged(damage);
    const t = await trainer();
    const error = await t.restore(ck).then(() => '', (e: Error) => e.message);
    expect(error).toContain(newest);
    expect(error).toContain('damaged');
    expect(error).toContain(`the one before it is ${before}`);
    await t.restore(before);
    expect(t.step).toBe(1);
  });

  it('of another optimizer are refused', async () => {
    const ck = place();
    await (await trainer()).save(ck);
    const other = await trainerOver(referenceEngine(tinyModel, { loss: { kind: 'crossEntropy' }, optimizer: { kind: 'sgd', momentum: 0.9 } }));
    await expect(other.restore(ck)).rejects.toThrow(/of another model or another optimizer: it lacks "w1.momentum"/);
  });

  it('are told from other safetensors files', async () => {
    const file = `${place()}.safetensors`;
    writeFileSync(file, Buffer.concat([Buffer.from([2, 0, 0, 0, 0, 0, 0, 0]), Buffer.from('{}')]));
    await expect((await trainer()).restore(file)).rejects.toThrow(/is not a checkpoint of tilewright/);
  });

  it('of a folder that is missing or empty', async () => {
    await expect((await trainer()).restore(join(folder, 'nowhere'))).rejects.toThrow(/nowhere: it does not exist/);
    await expect((await trainer()).restore(mkdtempSync(join(folder, 'empty-')))).rejects.toThrow(/holds no checkpoint/);
  });

  it('cannot be written below a file', async () => {
    const file = place();
    writeFileSync(file, '');
    await expect((await trainer()).save(join(file, 'ck'))).rejects.toThrow(/cannot write checkpoints to .*not a folder/);
  });
});

describe('a loss that is not finite', () => {
  it('names an input, and leaves the state as it was', async () => {
    const t = await trainer();
    await train(t, 0, 2);
    const before = bits((await t.checkpoint()).state);
    const { x, y } = tinyBatch(2);
    x[1] = NaN;
    await expect(t.trainStep({ x, y })).rejects.toThrow(/the loss of step 3 is NaN: the input "x" holds a number that is not finite/);
    expect(bits((await t.checkpoint()).state)).toEqual(before);
    expect(t.step).toBe(2);
  });

  it('asks for the op where inputs and weights are finite', async () => {
    const t = await trainerOver(referenceEngine(), { explain: (inputs, state) => Promise.resolve(`asked with ${Object.keys(inputs).join(' ')} and ${state.size} tensors`) });
    await t.setParameters({ w1: new Float32Array(15).fill(3e38) });
    const failed = await t.trainStep({ ...tinyBatch(0), x: new Float32Array(12).fill(3e38) }).catch((e: unknown) => e);
    expect(failed).toBeInstanceOf(NonFiniteLoss);
    expect(String(failed)).toMatch(/asked with x y lr and \d+ tensors/);
  });
});

describe('an update that is not finite, of a loss that is', () => {
  it.each([['NaN', NaN], ['infinity', Infinity]])('%s is not saved over a good checkpoint', async (what, bad) => {
    const ck = place();
    const t = await trainer();
    await train(t, 0, 2);
    await t.save(ck);
    await train(t, 2, 3);
    await t.setParameters({ w1: new Float32Array(15).fill(bad, 14) });
    const refused = await t.save(ck).catch((e: unknown) => e);
    expect(refused).toBeInstanceOf(NonFiniteState);
    expect(String(refused)).toMatch(new RegExp(`step-000000003.safetensors is not written: "w1" holds ${what}, which an update made; the learning rate may be too high`));
    expect(readdirSync(ck)).toEqual(['step-000000002.safetensors']);
  });

  it('is not exported over a good model', async () => {
    const t = await trainer();
    await t.setParameters({ b2: Float32Array.of(0, NaN) });
    const file = `${place()}.onnx`;
    writeFileSync(file, encodeModel(tinyModel));
    await expect(t.exportOnnx(file, file)).rejects.toThrow(/\.onnx is not written: "b2" holds NaN/);
    expect(readFileSync(file).equals(encodeModel(tinyModel))).toBe(true);
  });

  it('negative infinity, with which masks are written, is kept', async () => {
    const t = await trainer();
    await t.setParameters({ b2: Float32Array.of(0, -Infinity) });
    const ck = place();
    await t.save(ck);
    const back = await trainer();
    await back.restore(ck);
    expect((await back.parameters()).get('b2')!.data).toEqual(Float32Array.of(0, -Infinity));
  });
});

describe('export to ONNX', () => {
  const typed = (name: string, dims: readonly number[], data: readonly number[]): TensorProto => ({ name, dataType: 1, dims: [...dims], floatData: [...data] });
  const stored = (name: string): TensorProto => external(name, 'f32', [5, 3], { location: 'weights.bin', offset: '8', length: '60' });
  const with1 = (w1: TensorProto): TestModel => ({ ...tinyModel, initializers: [w1, ...tinyModel.initializers!.slice(1)] });

  it.each<[string, TestModel]>([
    ['raw data', tinyModel],
    ['typed data', with1(typed('w1', [5, 3], spread(15)))],
    ['data in another file', with1(stored('w1'))],
  ])('replaces %s; another runtime gives the outputs of an evaluation', async (_, model) => {
    const dir = mkdtempSync(join(folder, 'onnx-'));
    const [source, target] = [join(dir, 'model.onnx'), join(dir, 'trained.onnx')];
    writeFileSync(source, encodeModel(model));
    writeFileSync(join(dir, 'weights.bin'), Buffer.concat([Buffer.alloc(8), Buffer.from(Float32Array.from(spread(15)).buffer)]));
    const t = await trainer();
    await train(t, 0, 10);
    await t.exportOnnx(source, target);
    rmSync(join(dir, 'weights.bin'));
    const { x } = tinyBatch(99);
    const { logits } = await t.evaluate({ x });
    const peer = await openPeer('onnxruntime-node', target, 1);
    const theirs = await peer.run({ x: { dtype: 'f32', shape: [batch, 3], data: x } });
    await peer.close();
    for (const [i, v] of (theirs['logits']!.data as Float32Array).entries()) expect(v).toBeCloseTo(logits!.data[i] as number, 5);
    expect(Array.from(theirs['logits']!.data as Float32Array)).not.toEqual(spread(8));
    const patched = messages.ModelProto.decode(readFileSync(target)).graph!;
    expect(patched.node).toEqual(messages.ModelProto.decode(encodeModel(model)).graph!.node);
    expect(patched.initializer!.map((w) => [w.name, w.floatData ?? [], w.externalData ?? []])).toEqual(['w1', 'b1', 'w2', 'b2'].map((name) => [name, [], []]));
    expect(readdirSync(dir).sort()).toEqual(['model.onnx', 'trained.onnx']);
  });

  it('refuses a file that is another model', async () => {
    const t = await trainer();
    const write = (model: TestModel): string => {
      const file = `${place()}.onnx`;
      writeFileSync(file, encodeModel(model));
      return file;
    };
    const target = `${place()}.onnx`;
    await expect(t.exportOnnx(write({ ...tinyModel, initializers: tinyModel.initializers!.slice(1) }), target)).rejects.toThrow(/no initializer "w1"/);
    await expect(t.exportOnnx(write(with1(floats('w1', [3, 5], spread(15)))), target)).rejects.toThrow(/initializer "w1" is f32\[3,5\], but the trained weight is f32\[5,3\]/);
    writeFileSync(target, 'not a model');
    await expect(t.exportOnnx(target, target)).rejects.toThrow(/is not an ONNX model/);
    expect(readFileSync(target, 'utf8')).toBe('not a model');
  });
});
