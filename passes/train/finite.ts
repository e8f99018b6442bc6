/** Whether numbers are neither NaN nor infinite. */
import type { Builder } from '../../ir/builder.ts';
import type { Value } from '../../ir/graph.ts';

/** Largest finite numbers, as far as the type can tell them from infinity. */
const largest: Readonly<Record<string, number>> = { f64: Number.MAX_VALUE, f32: 3.4028234663852886e38, bf16: 3.3895313892515355e38, f16: 65504 };

/** Element by element, as bool. */
export const isFinite = (b: Builder, v: Value): Value => b.binary('le', b.unary('abs', v), largest[v.type.dtype] ?? largest['f32']!);

/** 1 (f32) where every element of every tensor is finite, else 0. */
export const allFinite = (b: Builder, values: readonly Value[]): Value =>
  values.map((v) => b.reduce('reduceMin', b.cast(isFinite(b, v), 'f32'), v.type.shape.map((_, axis) => axis))).reduce((x, y) => b.min(x, y));
