/** Numbers as the command line prints them. */
import { expect, it } from 'vitest';
import { preview } from '../cli/print.ts';

const shown = (values: readonly number[]): string => preview({ dtype: 'f32', shape: [values.length], data: Float32Array.from(values) });

it.each([
  [120000.3, '120000'],
  [100000.4, '100000'],
  [-300000.25, '-300000'],
  [0.1, '0.1'],
  [2.5, '2.5'],
  [1.00000005, '1'],
  [1e-20, '1e-20'],
  [1.25e-7, '1.25e-7'],
  [3, '3'],
  [NaN, 'NaN'],
  [-Infinity, '-Infinity'],
])('%d prints as %s', (x, text) => expect(shown([x])).toBe(text));
