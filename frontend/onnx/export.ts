/** Writes a graph of core ops as a plain ONNX model. */
import { UserError } from '../../ir/diagnostic.ts';
import { filled } from '../../ir/builder.ts';
import type { Graph } from '../../ir/graph.ts';
import { bytesOf } from '../../ir/type.ts';
import { openAxes, writeOps } from './export/rules.ts';
import { valueInfo, Writer, type FreeBatch } from './export/writer.ts';
import { messages } from './proto.ts';

export type { FreeBatch } from './export/writer.ts';

/** The opset of what is written, of 2022, and the IR version that goes with it. */
const opset = 18;
const irVersion = 8;
/** protobuf's own limit for a message. */
const largestFile = 2 ** 31 - 1;

export interface ExportOptions {
  /** The file takes any number of samples; without this, the graph's own. */
  readonly batch?: FreeBatch;
}

/**
 * A ModelProto's bytes: the graph's inputs and outputs under their names, all of its state as initializers under theirs, one or a few nodes for each op. The graph is one that no pass has
 * fused, in inference form. Ops and types that are not written (random numbers, packed weights, positions of maxima) are an Unsupported that names them.
 */
export function exportModel(graph: Graph, { batch }: ExportOptions = {}): Uint8Array {
  const weights = graph.state.reduce((n, s) => n + bytesOf(s.value.type), 0);
  if (weights > largestFile) throw new UserError(`the weights have ${weights} bytes, and ONNX files end at ${largestFile}`);
  const w = new Writer(batch);
  const fixed = new Map<string, string>();
  const inputs = graph.inputs.map((v, i) => {
    const name = w.input(v);
    fixed.set(name, v.name ?? `input${i}`);
    return valueInfo(name, v.type, openAxes(w, v));
  });
  w.samplesFrom(inputs[graph.inputs.findIndex((v) => batch?.axisOf(v) === 0)]?.name ?? '');
  for (const { value, name, init } of graph.state) {
    const placeholder = w.tensor(init === 'zero' ? filled(value.type.dtype, value.type.shape, 0) : init, name);
    fixed.set(placeholder, name);
    w.bind(value, placeholder);
  }
  writeOps(w, graph);
  w.from([]);
  const names = w.results(graph.outputs.map((o) => o.value));
  const outputs = graph.outputs.map((o, i) => {
    fixed.set(names[i]!, o.name);
    return valueInfo(names[i]!, o.value.type, openAxes(w, o.value));
  });
  const proto = w.finish({ name: graph.name, input: inputs, output: outputs }, fixed);
  return messages.ModelProto.encode({ irVersion, producerName: 'tilewright', opsetImport: [{ domain: '', version: opset }], graph: proto }).finish();
}
