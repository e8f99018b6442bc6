/** Parameters and multiply-adds of the zoo's architectures, against published figures; no weight is drawn. */
import { expect, test } from 'vitest';
import { importModel } from '../frontend/index.ts';
import { onnxBytes } from '../frontend/onnx/write.ts';
import { zooModel, zooNames } from '../frontend/zoo/index.ts';
import { countGraph } from '../ir/count.ts';
import { sizeOf } from '../ir/type.ts';

/** Counts of a model that declares its weights as inputs: multiply-adds from the imported graph, parameters without running statistics. */
function counts(name: string): { readonly parameters: number; readonly multiplyAdds: number } {
  const model = zooModel(name);
  const { graph } = importModel(onnxBytes(model), { dims: { n: 1 } });
  const statistics = new Set(model.weights.filter((w) => w.statistic).map((w) => w.name));
  const weights = graph.inputs.filter((v) => v.name !== 'x' && !statistics.has(v.name!));
  return { parameters: weights.reduce((n, v) => n + sizeOf(v.type.shape), 0), multiplyAdds: countGraph(graph).multiplyAdds };
}

/** Parameters and multiply-adds as torchvision documents them for its weights. */
test.each([
  ['resnet-50', 25_557_032, 4.089e9],
  ['resnet-101', 44_549_160, 7.801e9],
  ['resnext-50', 25_028_904, 4.23e9],
  ['mobilenet-v2', 3_504_872, 0.301e9],
  ['efficientnet-b0', 5_288_548, 0.386e9],
  ['efficientnet-b1', 7_794_184, 0.687e9],
  ['efficientnet-b3', 12_233_232, 1.827e9],
  ['efficientnet-b4', 19_341_616, 4.394e9],
  ['efficientnet-b5', 30_389_784, 10.266e9],
] as const)('%s: %i parameters, %d multiply-adds', (name, parameters, multiplyAdds) => {
  const found = counts(name);
  expect(found.parameters).toBe(parameters);
  expect(found.multiplyAdds / multiplyAdds).toBeCloseTo(1, 2);
});

test('efficientnet-b2: 9 109 994 parameters', () => expect(counts('efficientnet-b2').parameters).toBe(9_109_994));

/** He et al., arXiv 1512.03385, table 6: 0.27 M and 0.46 M. */
test.each([['resnet-20', 0.27], ['resnet-32', 0.46]] as const)('%s: %d million parameters', (name, millions) => expect(counts(name).parameters / 1e6).toBeCloseTo(millions, 2));

/** Brock et al., arXiv 2102.06171: billions of multiply-adds at the test resolution, millions of parameters. */
test.each([[0, 12.38, 71.5], [1, 35.54, 132.6], [2, 62.59, 193.8], [3, 114.76, 254.9], [4, 215.24, 316.1], [5, 289.76, 377.2], [6, 377.28, 438.4]] as const)(
  'nfnet-f%i: %d G multiply-adds, %d M parameters', (size, giga, millions) => {
    const { parameters, multiplyAdds } = counts(`nfnet-f${size}`);
    expect(Number((multiplyAdds / 1e9).toFixed(2))).toBe(giga);
    expect(Number((parameters / 1e6).toFixed(1))).toBe(millions);
  });

test('every architecture imports, in inference and in training form', () => {
  for (const name of zooNames) {
    for (const training of [false, true]) {
      const model = zooModel(name, { training, image: /^(resnet-(20|32)|convnet)/.test(name) ? [3, 32, 32] : [3, 64, 64], classes: 7 });
      expect(importModel(onnxBytes(model), { dims: { n: 2 } }).graph.outputs[0]!.value.type.shape, name).toEqual([2, 7]);
    }
  }
});
