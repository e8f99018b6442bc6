/** Rewritten batch normalizations against plain loops. */
import { describe, expect, it } from 'vitest';
import { compile } from '../index.ts';
import { importModel } from '../frontend/index.ts';
import { evaluate } from '../ir/evaluate.ts';
import { foldConstants } from '../passes/fold-constants.ts';
import { parseNorm } from '../passes/norm/options.ts';
import { rewriteNorms } from '../passes/norm/rewrite-norms.ts';
import { load } from '../runtime/index.ts';
import { testTarget } from './ir/target.ts';
import { f32 } from './lowering-harness.ts';
import { activations, batchNormModel, beta, c, close, expected, gamma, h, mean, n, outputOf, rewrite, variance, x } from './norm-harness.ts';
import { encodeModel, node, value } from './onnx-encode.ts';
import { numbers } from './train-harness.ts';

describe.each([false, true])('a batch normalization, training form: %s', (training) => {
  describe.each(Object.entries(activations))('before %s', (_, { nodes, f }) => {
    it.each([['group:2', 2], ['layer', 1], ['instance', 4], ['group:9', 4]] as const)('becomes %s', (norm, groups) => {
      const bytes = batchNormModel(nodes, { training });
      close(outputOf(rewrite(bytes, norm)), expected({ groups, f }));
      const proxied = rewrite(bytes, `${norm}+proxy`);
      expect(proxied.rewritten).toEqual([{ node: 'BatchNormalization(bn)', from: training ? 'training' : 'inference', channels: c, proxy: ['n.proxy_gamma', 'n.proxy_beta'] }]);
      close(outputOf(proxied), expected({ groups, f, proxy: true }));
    });
  });

  it('leaves no running statistics behind', () => {
    const { graph, statistics } = rewrite(batchNormModel(activations['relu']!.nodes, { training }), 'layer+proxy');
    expect(graph.state.map((s) => s.name)).toEqual(['n.weight', 'n.bias', 'n.proxy_gamma', 'n.proxy_beta']);
    expect(statistics).toEqual([]);
  });

  it('without an activation of its own keeps its affine, or its scale alone', () => {
    const bytes = batchNormModel([node('Add', ['u', 'x'], ['a']), node('Relu', ['a'], ['y'])], { training });
    const affine = expected({ groups: 2 });
    const { graph, rewritten } = rewrite(bytes, 'group:2+proxy');
    expect(rewritten[0]!.proxy).toEqual([]);
    close(outputOf({ graph }), affine.map((v, i) => Math.max(v + x[i]!, 0)));
    const scaled = rewriteNorms(importModel(bytes, { dims: { n } }), { kind: 'group', groups: 2, proxy: { centerOnly: true } }, testTarget);
    expect(scaled.graph.state.map((s) => s.name)).toEqual(['n.weight']);
    close(outputOf(scaled), affine.map((v, i) => Math.max(v - beta[Math.floor(i / h) % c]! + x[i]!, 0)));
  });

  it('becomes none: scale and shift alone', () => close(outputOf(rewrite(batchNormModel([node('Relu', ['u'], ['y'])], { training }), 'none')), x.map((v, i) => Math.max(gamma[Math.floor(i / h) % c]! * v + beta[Math.floor(i / h) % c]!, 0))));

  it('becomes frozen, with the statistics that it has', () => {
    const { statistics, ...result } = rewrite(batchNormModel([node('Relu', ['u'], ['y'])], { training }), 'frozen');
    expect(statistics.map((s) => [s.state.name, s.next])).toEqual([['n.mean', undefined], ['n.var', undefined]]);
    close(outputOf(result), x.map((v, i) => {
      const k = Math.floor(i / h) % c;
      return Math.max((gamma[k]! * (v - mean[k]!)) / Math.sqrt(variance[k]! + 1e-5) + beta[k]!, 0);
    }));
  });

  it('becomes batch norm that updates its statistics', () => {
    const { graph, statistics } = rewrite(batchNormModel([node('Relu', ['u'], ['y'])], { training }), 'batch');
    const ofChannel = (k: number): number[] => x.filter((_, i) => Math.floor(i / h) % c === k);
    const m = [0, 1, 2, 3].map((k) => ofChannel(k).reduce((a, b) => a + b) / (n * h));
    const v = m.map((centre, k) => ofChannel(k).reduce((a, b) => a + (b - centre) ** 2, 0) / (n * h));
    close(outputOf({ graph }), x.map((z, i) => {
      const k = Math.floor(i / h) % c;
      return Math.max((gamma[k]! * (z - m[k]!)) / Math.sqrt(v[k]! + 1e-5) + beta[k]!, 0);
    }));
    expect(statistics.map((s) => s.state.name)).toEqual(['n.mean', 'n.var']);
    const next = { ...graph, outputs: statistics.map((s) => ({ name: s.state.name!, value: s.next! })) };
    const { outputs } = evaluate(next, { x: f32([n, c, h], x) });
    close(numbers(outputs.get('n.mean')!), m.map((now, k) => 0.9 * mean[k]! + 0.1 * now));
    close(numbers(outputs.get('n.var')!), v.map((now, k) => 0.9 * variance[k]! + 0.1 * now));
  });
});

describe('an activation', () => {
  it('ends before the scale of the next normalization', () => {
    const bytes = batchNormModel([node('Relu', ['u'], ['r']), node('BatchNormalization', ['r', 'n.weight', 'n.bias', 'n.mean', 'n.var'], ['w'], {}, { name: 'second' }), node('Identity', ['w'], ['y'])]);
    const { rewritten } = rewrite(bytes, 'layer+proxy');
    expect(rewritten.map((r) => [r.node, r.proxy.length])).toEqual([['BatchNormalization(bn)', 2], ['BatchNormalization(second)', 0]]);
  });
  it('is none where the normalised value has another reader', () => {
    const { rewritten } = rewrite(batchNormModel([node('Relu', ['u'], ['r']), node('Concat', ['r', 'u'], ['y'], { axis: 1 })]), 'layer+proxy');
    expect(rewritten[0]!.proxy).toEqual([]);
  });
});

describe('at inference', () => {
  it('the proxy folds to constants', () => {
    const { graph } = rewrite(batchNormModel(activations['silu']!.nodes), 'group:2+proxy');
    const folded = foldConstants(graph, testTarget);
    expect(folded.ops.filter((op) => op.name === 'moments')).toHaveLength(1);
    expect(folded.ops.flatMap((op) => op.results).filter((v) => v.type.shape[0] === 200)).toEqual([]);
  });

  it('one compiled op gives the same numbers', async () => {
    const artifact = await compile(batchNormModel(activations['silu']!.nodes), { dims: { n }, features: ['simd'], norm: parseNorm('group:2+proxy') });
    // The output is a reshape of what the op gives: a copy.
    expect(artifact.manifest.steps.map((s) => s.name).filter((name) => name !== 'copy')).toEqual([expect.stringMatching(/^row\(moments .*sigmoid mul sub mul\)$/)]);
    const session = await load(artifact);
    const { y } = await session.run({ x: Float32Array.from(x) });
    close(numbers(y!), expected({ groups: 2, f: activations['silu']!.f, proxy: true }));
    await session.close();
  });
});

describe('refuses', () => {
  const bytes = batchNormModel([node('Relu', ['u'], ['y'])]);
  it('a number of groups that does not divide the channels', () => expect(() => rewrite(bytes, 'group:3')).toThrow(/BatchNormalization\(bn\) has 4 channels, which do not divide into 3 groups; give one of 1, 2, 4$/));
  it('a model without batch normalizations', () =>
    expect(() => rewrite(encodeModel({ nodes: [node('Relu', ['x'], ['y'])], inputs: [value('x', 'f32', ['n', 2])], outputs: [value('y', 'f32')] }), 'layer')).toThrow(/no batch normalization to rewrite to layer/));
  it.each([['groups:4', /unknown normalization "groups:4"/], ['group', /needs a number of groups/], ['group:0', /needs a number/], ['layer:2', /takes no number/], ['layer+prox', /unknown addition "\+prox"/], ['', /unknown normalization/]])('the name "%s"', (name, message) => expect(() => parseNorm(name)).toThrow(message));
});

describe('a model that has the form already', () => {
  it.each(['group:2+proxy', 'layer', 'instance', 'none+proxy', 'batch', 'frozen'])('%s comes back as it is', (norm) => {
    const once = rewrite(batchNormModel([node('Relu', ['u'], ['y'])]), norm);
    const twice = rewriteNorms(once, parseNorm(norm), testTarget);
    expect(twice.graph).toBe(once.graph);
    expect(twice.rewritten).toEqual([]);
  });
});
