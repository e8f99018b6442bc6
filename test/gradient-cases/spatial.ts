/** Random windows over spatial axes. */
import fc from 'fast-check';

export interface Geometry {
  readonly input: number[];
  readonly out: number[];
  readonly kernel: number[];
  /** The attributes that all windowed ops have. */
  readonly sweep: { readonly strides: number[]; readonly pads: number[]; readonly dilations: number[] };
}

const axis = fc.record({
  kernel: fc.integer({ min: 1, max: 3 }),
  stride: fc.integer({ min: 1, max: 3 }),
  dilation: fc.integer({ min: 1, max: 3 }),
  lo: fc.integer({ min: -1, max: 2 }),
  hi: fc.integer({ min: -1, max: 2 }),
  extra: fc.integer({ min: 0, max: 3 }),
}).map((a) => {
  const reach = (a.kernel - 1) * a.dilation + 1;
  const input = Math.max(1, reach - a.lo - a.hi + a.extra);
  return { ...a, input, out: Math.floor((input + a.lo + a.hi - reach) / a.stride) + 1 };
});

/** Strides, dilations and paddings (negative too) of one to three axes that give at least one output element. */
export const geometries: fc.Arbitrary<Geometry> = fc.array(axis, { minLength: 1, maxLength: 3 })
  .filter((axes) => axes.reduce((n, a) => n * Math.max(a.input, a.out), 1) <= 60)
  .map((axes) => ({
    input: axes.map((a) => a.input),
    out: axes.map((a) => a.out),
    kernel: axes.map((a) => a.kernel),
    sweep: { strides: axes.map((a) => a.stride), pads: [...axes.map((a) => a.lo), ...axes.map((a) => a.hi)], dilations: axes.map((a) => a.dilation) },
  }));
