/** Official ONNX backend tests whose node is one core op: its operands and expected results, from their files. */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { readTensorFile } from '../frontend/onnx/tensor-file.ts';
import type { Attrs } from '../ir/graph.ts';
import { toRef } from '../ir/number.ts';
import { showType, type Tensor } from '../ir/type.ts';
import { run } from './run-op.ts';

const root = join(import.meta.dirname, '../../shared/onnx-backend/node');

export interface OfficialCase {
  /** The folder's name without `test_`. */
  readonly name: string;
  readonly op: string;
  readonly attrs: Attrs;
  /** What the op gets, where that is not all inputs as they are. */
  readonly operands?: (inputs: readonly Tensor[]) => readonly Tensor[];
  /** What the op's results mean, where they are not the outputs as they are. */
  readonly results?: (results: readonly Tensor[], inputs: readonly Tensor[]) => readonly Tensor[];
}

/** Runs the cases on the interpreter; results that an official case does not list are not looked at. */
export function official(cases: readonly OfficialCase[]): void {
  const absent = !existsSync(root);
  describe.skipIf(absent)(absent ? 'official ONNX cases (skipped: ../shared/onnx-backend/node is not there)' : 'official ONNX cases', () => {
    it.each(cases)('$name', ({ name, op, attrs, operands, results }) => {
      const inputs = read(name, 'input');
      const got = run(op, operands?.(inputs) ?? inputs, attrs);
      const final = results?.(got, inputs) ?? got;
      read(name, 'output').forEach((want, i) => expectClose(final[i]!, want));
    });
  });
}

/** Equal types; values within 1e-5 of each other (expected values are of f32 arithmetic), integers equal. */
function expectClose(got: Tensor, want: Tensor): void {
  expect(showType(got)).toBe(showType(want));
  const expected = Array.from(toRef(want).data as Float64Array, Number);
  Array.from(toRef(got).data as Float64Array, Number).forEach((x, i) => expect(Math.abs(x - expected[i]!), `element ${i} is ${x}, expected ${expected[i]}`).toBeLessThanOrEqual(1e-5 * Math.max(1, Math.abs(expected[i]!))));
}

function read(name: string, kind: 'input' | 'output'): Tensor[] {
  const folder = join(root, `test_${name}`, 'test_data_set_0');
  const count = readdirSync(folder).filter((f) => f.startsWith(kind)).length;
  return Array.from({ length: count }, (_, i) => readTensorFile(join(folder, `${kind}_${i}.pb`)).tensor);
}
