import { existsSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { importModel } from '../frontend/onnx/import.ts';
import { evaluate } from '../ir/evaluate.ts';
import { graphText, printGraph } from '../ir/text.ts';
import { parseGraph } from '../ir/parse.ts';
import { runPipeline } from '../passes/pipeline.ts';
import { generator } from '../ir/generator.ts';
import { numbersOf, randomInputs } from './ir/tensors.ts';
import { testTarget } from './ir/target.ts';

/** Small real models of every kind: convolutions, depthwise, quantised, recurrent with attention. */
const models = ['mnist_cntk', 'mnist_burn', 'micro_kws_m_fp32', 'micro_kws_m_qdq', 'velardo_lesson14', 'gtcrn_stream', 'yunet_n_320', 'squeezenet1_1'];
const folder = new URL('../../shared/models/', import.meta.url);

/** Folding scales into weights moves roundings; these models keep them below this part of an output's largest magnitude. */
const tolerance = 1e-4;

describe('the passes keep what real models compute', () => {
  it.skipIf(!existsSync(folder)).each(models)('%s (needs ../shared/models)', (name) => {
    const url = new URL(`${name}.onnx`, folder);
    const { graph } = importModel(url.pathname);
    const printed = printGraph(graph, { locations: true });
    expect(graphText(parseGraph(printed.text, printed.tensors), { locations: true })).toBe(printed.text);

    const inputs = randomInputs(graph, generator(3));
    const want = evaluate(graph, inputs).outputs;
    let passes = 0;
    const result = runPipeline(graph, testTarget, { verify: true, onGraph: () => passes++ });
    expect(passes).toBeGreaterThan(0);
    const got = evaluate(result, inputs).outputs;
    for (const [output, tensor] of want) {
      const [expected, found] = [numbersOf(tensor), numbersOf(got.get(output)!)];
      const largest = expected.reduce((m, x) => Math.max(m, Math.abs(x)), 0);
      const worst = expected.reduce((m, x, i) => Math.max(m, Math.abs(x - found[i]!)), 0);
      expect(worst, `${output}, largest ${largest}`).toBeLessThanOrEqual(tolerance * largest);
    }
    const again = printGraph(result);
    expect(graphText(parseGraph(again.text, again.tensors))).toBe(again.text);
  });
});
