/** RNN, GRU and LSTM: the input's product with W for all steps at once, then a loop over time. */
import type { Builder } from '../../../ir/builder.ts';
import type { Value } from '../../../ir/graph.ts';
import type { LowerContext, LoweringTable } from '../lowering.ts';
import { recurrentActivation } from './activations.ts';
import { range, row } from './helpers.ts';
import { repeat, stepOf } from './loops.ts';

type Activation = (b: Builder, x: Value) => Value;

/** What a cell's step sees. `gates` is x·Wᵀ + Wb for the step, [N, G·H]; state is [h] or [h, c], each [N, H]. */
interface CellStep {
  readonly b: Builder;
  readonly gates: Value;
  readonly state: readonly Value[];
  readonly recurrence: Value;
  readonly recurrenceBias: Value | undefined;
  readonly peephole: Value | undefined;
  readonly f: readonly Activation[];
  readonly hidden: number;
}

interface Cell {
  readonly gates: number;
  readonly states: 1 | 2;
  readonly activations: readonly string[];
  step(s: CellStep): Value[];
}

/** The part of an [N, G·H] tensor that belongs to gate `i`. */
const gate = (s: CellStep, x: Value, i: number): Value => s.b.slice(x, [...x.type.shape.slice(0, -1).map(() => 0), i * s.hidden], [...x.type.shape.slice(0, -1), s.hidden]);
/** h·Rᵀ for gates [from, to), plus their bias where there is one. */
function recurrent(s: CellStep, h: Value, from: number, to: number): Value {
  const { b, hidden } = s;
  const r = b.slice(s.recurrence, [from * hidden, 0], [(to - from) * hidden, hidden]);
  const product = b.contract('nk,gk->ng', h, r);
  return s.recurrenceBias ? b.add(product, b.slice(s.recurrenceBias, [from * hidden], [(to - from) * hidden])) : product;
}

const rnn: Cell = {
  gates: 1, states: 1, activations: ['Tanh'],
  step: (s) => [s.f[0]!(s.b, s.b.add(s.gates, recurrent(s, s.state[0]!, 0, 1)))],
};

const gru = (linearBeforeReset: boolean): Cell => ({
  gates: 3, states: 1, activations: ['Sigmoid', 'Tanh'],
  step(s) {
    const { b } = s;
    const h = s.state[0]!;
    const [f, g] = [s.f[0]!, s.f[1]!];
    const both = recurrent(s, h, 0, 2);
    const update = f(b, b.add(gate(s, s.gates, 0), gate(s, both, 0)));
    const reset = f(b, b.add(gate(s, s.gates, 1), gate(s, both, 1)));
    const candidate = linearBeforeReset ? b.mul(reset, recurrent(s, h, 2, 3)) : recurrent(s, b.mul(reset, h), 2, 3);
    const next = g(b, b.add(gate(s, s.gates, 2), candidate));
    return [b.add(b.mul(b.sub(1, update), next), b.mul(update, h))];
  },
});

/** Gates in the order input, output, forget, cell; peepholes in the order input, output, forget. */
const lstm = (coupled: boolean): Cell => ({
  gates: 4, states: 2, activations: ['Sigmoid', 'Tanh', 'Tanh'],
  step(s) {
    const { b } = s;
    const [h, c] = [s.state[0]!, s.state[1]!];
    const [f, g, out] = [s.f[0]!, s.f[1]!, s.f[2]!];
    const all = b.add(s.gates, recurrent(s, h, 0, 4));
    const peep = (i: number, x: Value, by: Value): Value => (s.peephole ? b.add(x, b.mul(by, gate(s, s.peephole, i))) : x);
    const input = f(b, peep(0, gate(s, all, 0), c));
    const forget = coupled ? b.sub(1, input) : f(b, peep(2, gate(s, all, 2), c));
    const cell = b.add(b.mul(forget, c), b.mul(input, g(b, gate(s, all, 3))));
    return [b.mul(f(b, peep(1, gate(s, all, 1), cell)), out(b, cell)), cell];
  },
});

/** Activations for each direction in turn; alpha and beta are consumed by those that take them. */
function activationsOf(cx: LowerContext, cell: Cell, directions: number): Activation[][] {
  const { attrs } = cx.node;
  const names = attrs.strings('activations', range(directions).flatMap(() => cell.activations));
  const alphas = [...attrs.floats('activation_alpha', [])];
  const betas = [...attrs.floats('activation_beta', [])];
  const clip = attrs.float('clip', undefined);
  if (names.length !== directions * cell.activations.length) cx.bad(`activations has ${names.length} names: expected ${directions * cell.activations.length}`);
  const all = names.map((name): Activation => {
    const found = recurrentActivation(name) ?? cx.unsupported(`${cx.node.opType} activation "${name}"`, 'it is not among those that ONNX lists');
    const alpha = found.takes > 0 ? alphas.shift() : undefined;
    const beta = found.takes > 1 ? betas.shift() : undefined;
    return (b, x) => found.apply(b, clip === undefined ? x : b.one('clamp', [x, b.scalar(-clip, x.type.dtype), b.scalar(clip, x.type.dtype)]), alpha, beta);
  });
  return range(directions).map((d) => all.slice(d * cell.activations.length, (d + 1) * cell.activations.length));
}

/** One direction: Y [T, N, H] in the order of time, and the last states. */
function direction(cx: LowerContext, cell: Cell, x: Value, d: number, reversed: boolean, f: readonly Activation[]): { y: Value; last: Value[] } {
  const { b } = cx;
  const [steps, batch] = [x.type.shape[0]!, x.type.shape[1]!];
  const part = (v: Value): Value => b.reshape(b.slice(v, [d, ...v.type.shape.slice(1).map(() => 0)], [1, ...v.type.shape.slice(1)]), v.type.shape.slice(1));
  const [w, recurrence] = [part(cx.input(1)), part(cx.input(2))];
  const hidden = recurrence.type.shape[1]!;
  const rows = cell.gates * hidden;
  const bias = cx.optionalInput(3);
  const halves = bias && part(bias);
  const input = b.contract('tni,gi->tng', x, w);
  const gates = halves ? b.add(input, b.slice(halves, [0], [rows])) : input;
  const recurrenceBias = halves && b.slice(halves, [rows], [rows]);
  const lengths = cx.optionalInput(4);
  const peepholes = cell.states === 2 ? cx.optionalInput(7) : undefined;
  const peephole = peepholes && part(peepholes);
  const initial = range(cell.states).map((s) => {
    const given = cx.optionalInput(5 + s);
    return given ? part(given) : b.zeros({ dtype: x.type.dtype, shape: [batch, hidden] });
  });
  const captured = [gates, recurrence, recurrenceBias, lengths && b.reshape(b.cast(lengths, 'i64'), [batch, 1]), peephole];
  const present = captured.filter((v) => v !== undefined);
  const results = repeat(b, steps, initial, present, (inner, step, state, outside) => {
    let at = 0;
    const [allGates, r, rBias, limit, peep] = captured.map((v) => (v === undefined ? undefined : outside[at++]!));
    const t = reversed ? inner.sub(steps - 1, step) : step;
    const next = cell.step({ b: inner, gates: stepOf(inner, allGates!, t), state, recurrence: r!, recurrenceBias: rBias, peephole: peep, f, hidden });
    if (!limit) return { carried: next, collected: [next[0]!] };
    // Beyond a sample's length its state stands still and its output is zero.
    const inside = inner.binary('lt', t, limit);
    return { carried: next.map((v, i) => inner.select(inside, v, state[i]!)), collected: [inner.select(inside, next[0]!, 0)] };
  });
  const y = results[cell.states]!;
  return { y: reversed ? b.slice(y, [steps - 1, 0, 0], y.type.shape, [-1, 1, 1]) : y, last: results.slice(0, cell.states) };
}

/** Y [T, D, N, H], Y_h [D, N, H] and, for LSTM, Y_c; batch first where layout is 1. */
const recurrentOp = (cellOf: (cx: LowerContext) => Cell) => (cx: LowerContext): Value[] => {
  const { b, node } = cx;
  const name = node.attrs.string('direction', 'forward');
  if (!['forward', 'reverse', 'bidirectional'].includes(name)) cx.bad(`direction is "${name}": expected forward, reverse or bidirectional`);
  const directions = name === 'bidirectional' ? 2 : 1;
  const batchFirst = node.attrs.int('layout', 0) !== 0;
  const view = batchFirst ? batchFirstView(cx) : cx;
  const cell = cellOf(cx);
  if (view.input(1).type.shape[0] !== directions) cx.bad(`W has ${view.input(1).type.shape[0]} directions: expected ${directions}`);
  const hidden = node.attrs.int('hidden_size', view.input(2).type.shape[2]!);
  if (hidden !== view.input(2).type.shape[2]) cx.bad(`hidden_size is ${hidden} and R has shape [${view.input(2).type.shape.join(',')}]`);
  const f = activationsOf(cx, cell, directions);
  const x = view.input(0);
  const all = range(directions).map((d) => direction(view, cell, x, d, name === 'reverse' || d === 1, f[d]!));
  const lift = (v: Value, axis: number): Value => b.reshape(v, [...v.type.shape.slice(0, axis), 1, ...v.type.shape.slice(axis)]);
  const y = b.concat(all.map((r) => lift(r.y, 1)), 1);
  const last = range(cell.states).map((s) => b.concat(all.map((r) => lift(r.last[s]!, 0)), 0));
  return batchFirst ? [b.transpose(y, [2, 0, 1, 3]), ...last.map((v) => b.transpose(v, [1, 0, 2]))] : [y, ...last];
};

/** The same node with its X and initial states turned to time first. */
function batchFirstView(cx: LowerContext): LowerContext {
  const turn = (i: number, v: Value): Value => (i === 0 || i === 5 || i === 6 ? cx.b.transpose(v, [1, 0, 2]) : v);
  return {
    ...cx,
    input: (i) => turn(i, cx.input(i)),
    optionalInput: (i) => {
      const v = cx.optionalInput(i);
      return v && turn(i, v);
    },
  };
}

export const recurrentOps: LoweringTable = {
  RNN: [row(1, [3, 6], recurrentOp(() => rnn), [0, 2])],
  GRU: [row(1, [3, 6], recurrentOp((cx) => gru(cx.node.attrs.int('linear_before_reset', 0) !== 0)), [0, 2])],
  LSTM: [row(1, [3, 8], recurrentOp((cx) => lstm(cx.node.attrs.int('input_forget', 0) !== 0)), [0, 3])],
};
