/** Prints graphs as text: one op a line, every result type, attributes in the order of the op's definition. `parse.ts` reads it back. */
import type { Attr, Attrs, Graph, Op, Value } from './graph.ts';
import { decodeFloat, encodeFloat } from './number.ts';
import { ops as opTable } from './ops/index.ts';
import { isFloat, showType, sizeOf, type Tensor } from './type.ts';

/** Tensors of up to this many elements print their values; larger ones print a reference into the table beside the text. */
const inlineLimit = 16;

export interface PrintOptions {
  /** Adds the ONNX nodes that each op came from as a comment. */
  readonly locations?: boolean;
}

export interface Printed {
  readonly text: string;
  /** Large tensors by the name that the text refers to them with: `c0`, `c1`, ... for constants, the state's own name for state. */
  readonly tensors: ReadonlyMap<string, Tensor>;
  /** Line (from 1) of each op, and of the header and the `return` line of each graph and region. */
  readonly lines: ReadonlyMap<Op | Graph, number>;
  readonly returns: ReadonlyMap<Graph, number>;
  /** How each value is printed, `%name`. */
  readonly names: ReadonlyMap<Value, string>;
}

/** The text of a graph; see docs/ir.md. `parseGraph(printed.text, printed.tensors)` gives an equal graph. */
export function printGraph(graph: Graph, options: PrintOptions = {}): Printed {
  const out: string[] = [];
  const tensors = new Map<string, Tensor>();
  const lines = new Map<Op | Graph, number>();
  const returns = new Map<Graph, number>();
  const reserved = new Set(graph.state.map((s) => s.name));
  const names = valueNames();
  let constants = 0;

  const tensorText = (t: Tensor): string => {
    if (t.data.length <= inlineLimit) return `${showType(t)}(${elements(t)})`;
    while (reserved.has(`c${constants}`)) constants++;
    const key = `c${constants++}`;
    tensors.set(key, t);
    return `${showType(t)}@${key}`;
  };
  const declared = (values: readonly Value[]): string => values.map((v) => `${names.of(v)}: ${showType(v.type)}`).join(', ');
  const stateText = (s: Graph['state'][number]): string => {
    const head = `${names.of(s.value)}: ${showType(s.value.type)} = ${JSON.stringify(s.name)}`;
    if (s.init === 'zero') return `${head} zero`;
    if (s.init.data.length <= inlineLimit) return `${head} (${elements(s.init)})`;
    tensors.set(s.name, s.init);
    return head;
  };
  const returnText = (g: Graph): string => {
    const outputs = g.outputs.map((o) => (o.name === '' ? '' : `${JSON.stringify(o.name)} = `) + names.of(o.value));
    const updates = g.updates.map((u) => `${names.of(u.state)} = ${names.of(u.value)}`);
    return ['return', [...outputs, ...(updates.length > 0 ? [`state(${updates.join(', ')})`] : [])].join(', ')].join(' ').trimEnd();
  };
  const body = (g: Graph, indent: string): void => {
    for (const op of g.ops) printOp(op, indent);
    returns.set(g, out.length + 1);
    out.push(indent + returnText(g));
  };
  const printOp = (op: Op, indent: string): void => {
    lines.set(op, out.length + 1);
    const operands = op.operands.map(names.of).join(', ');
    const attrs = attrsText(op.name, op.attrs, tensorText);
    let line = [indent + (op.results.length > 0 ? `${op.results.map(names.of).join(', ')} = ${op.name}` : op.name), operands, attrs].filter((s) => s !== '').join(' ');
    for (const region of op.regions) {
      if (!lines.has(region)) lines.set(region, out.length + 1);
      out.push(`${line} ${region.name === '' ? '' : graphName(region.name)}(${declared(region.inputs)}) {`);
      body(region, `${indent}  `);
      line = `${indent}}`;
    }
    line += ` : ${op.results.map((r) => showType(r.type)).join(', ')}`;
    out.push(options.locations && op.source.length > 0 ? `${line} // from ${op.source.map((s) => JSON.stringify(s)).join(', ')}` : line);
  };

  lines.set(graph, 1);
  const state = graph.state.length > 0 ? ` state(${graph.state.map(stateText).join(', ')})` : '';
  out.push(`graph ${graphName(graph.name)}(${declared(graph.inputs)})${state} {`);
  body(graph, '  ');
  out.push('}');
  return { text: out.join('\n') + '\n', tensors, lines, returns, names: names.map };
}

/** The text alone, for messages and tests. */
export const graphText = (graph: Graph, options: PrintOptions = {}): string => printGraph(graph, options).text;

/**
 * Gives every value a name that is unique in the whole text: its own where it has one (`%x`, quoted where needed; `%x#1` for the second value of that
 * name, the parser drops the suffix), else a number.
 */
function valueNames(): { of: (v: Value) => string; map: ReadonlyMap<Value, string> } {
  const map = new Map<Value, string>();
  const taken = new Map<string, number>();
  let next = 0;
  const fresh = (v: Value): string => {
    if (v.name === undefined) return `%${next++}`;
    const base = /^[A-Za-z_/][\w./-]*$/.test(v.name) ? `%${v.name}` : `%${JSON.stringify(v.name)}`;
    const count = taken.get(base) ?? 0;
    taken.set(base, count + 1);
    return count === 0 ? base : `${base}#${count}`;
  };
  const of = (v: Value): string => {
    let name = map.get(v);
    if (name === undefined) map.set(v, (name = fresh(v)));
    return name;
  };
  return { of, map };
}

const graphName = (name: string): string => (/^[A-Za-z_][\w./-]*$/.test(name) ? `@${name}` : `@${JSON.stringify(name)}`);

/** `{strides=[1,1], groups=1}`, or nothing for an op without attributes. Attributes that the definition does not know come last. */
function attrsText(op: string, attrs: Attrs, tensorText: (t: Tensor) => string): string {
  const known = Object.keys(opTable.get(op)?.attrs ?? {});
  const keys = [...known.filter((k) => k in attrs), ...Object.keys(attrs).filter((k) => !known.includes(k)).sort()];
  return keys.length === 0 ? '' : `{${keys.map((k) => `${k}=${attrText(attrs[k]!, tensorText)}`).join(', ')}}`;
}

function attrText(a: Attr, tensorText: (t: Tensor) => string): string {
  if (typeof a === 'number') return numberText(a);
  if (typeof a === 'bigint') return `${a}n`;
  if (typeof a === 'string') return JSON.stringify(a);
  if (typeof a === 'boolean') return String(a);
  if ('data' in a) return tensorText(a);
  return `[${a.map((x) => (typeof x === 'number' ? numberText(x) : JSON.stringify(x))).join(',')}]`;
}

/** A number so that reading it back gives the same number; `inf`, `-inf`, `nan` and `-0` included. */
function numberText(x: number): string {
  if (Number.isNaN(x)) return 'nan';
  if (!Number.isFinite(x)) return x > 0 ? 'inf' : '-inf';
  return Object.is(x, -0) ? '-0' : String(x);
}

/** The elements of a small tensor, each in the fewest digits that read back to the same bits. */
export function elements(t: Tensor): string {
  const { dtype, data } = t;
  if (!isFloat(dtype)) return Array.from({ length: sizeOf(t.shape) }, (_, i) => String(data[i])).join(', ');
  return Array.from(data as ArrayLike<number | bigint>, (bits) => {
    if (dtype === 'f64') return numberText(Number(bits));
    const x = dtype === 'f32' ? Number(bits) : decodeFloat(dtype, Number(bits));
    const round = dtype === 'f32' ? Math.fround : (y: number): number => decodeFloat(dtype, encodeFloat(dtype, y));
    // A NaN with a payload, or a second zero, that encoding would not give back is printed as bits.
    if (dtype !== 'f32' && encodeFloat(dtype, x) !== Number(bits)) return `0x${Number(bits).toString(16)}`;
    return numberText(shortest(x, round));
  }).join(', ');
}

function shortest(x: number, round: (y: number) => number): number {
  if (!Number.isFinite(x) || Number.isInteger(x)) return x;
  for (let digits = 1; digits < 10; digits++) {
    const y = Number(x.toPrecision(digits));
    if (round(y) === x) return y;
  }
  return x;
}
