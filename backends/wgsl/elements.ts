/** The plain kernel: an invocation computes one element of each result, and all that it is made from. */
import { invariant } from '../../ir/diagnostic.ts';
import type { Op } from '../../ir/graph.ts';
import { rowMajor, sameShape, sizeOf } from '../../ir/type.ts';
import { Evaluator } from './evaluator.ts';
import { bodyOf, Kernel, type KernelCode, type Located } from './kernel.ts';
import type { Site } from './machine.ts';
import type { Writer } from './writer.ts';

/** One kernel for each shape among the results. */
export function emitElements(op: Op, operands: readonly Located[], results: readonly Located[], site: Site): KernelCode[] {
  const body = bodyOf(op);
  const shapes = results.map((r) => r.type.shape).filter((s, i, all) => sizeOf(s) > 0 && all.findIndex((o) => sameShape(o, s)) === i);
  return shapes.map((shape) => {
    const which = results.flatMap((r, i) => (sameShape(r.type.shape, shape) ? [i] : []));
    const kernel = new Kernel(op, operands, which.map((i) => results[i]!), site);
    const { w } = kernel;
    const grid = kernel.elements(sizeOf(shape));
    const index = positions(w, 'element', shape, results[which[0]!]!.strides);
    const e = new Evaluator(kernel, body);
    const values = which.map((i) => {
      const output = body.outputs[i];
      invariant(output, 'a result of a kernel is an output of its body');
      return e.at(output, index);
    });
    which.forEach((_, k) => kernel.store(k, index, values[k]!));
    return kernel.finish(...grid);
  });
}

/** The index of element number `linear`, counted so that neighbours in memory follow each other. */
export function positions(w: Writer, linear: string, shape: readonly number[], strides: readonly number[]): string[] {
  const order = shape.map((_, axis) => axis).filter((axis) => shape[axis] !== 1).sort((p, q) => strides[q]! - strides[p]! || p - q);
  const steps = rowMajor(order.map((axis) => shape[axis]!));
  const index = shape.map(() => '0');
  order.forEach((axis, k) => {
    const high = steps[k] === 1 ? linear : `${linear} / ${steps[k]!}`;
    index[axis] = w.let('i', k === 0 ? high : `(${high}) % ${shape[axis]!}`);
  });
  return index;
}
