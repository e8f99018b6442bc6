/** --log-gradients: the norm and the largest magnitude of every parameter's gradient, step by step. */
import { closeSync, existsSync, openSync, readFileSync, writeSync } from 'node:fs';
import { UserError } from '../../ir/diagnostic.ts';
import { writeReason } from '../../runtime/bytes.ts';
import type { Tensor } from '../../runtime/tensor.ts';

export interface GradientLog {
  write(step: number, outputs: Readonly<Record<string, Tensor>>): void;
  close(): void;
}

const head = 'step,parameter,norm,max';
const suffix = '.grad';

/** Opens the file; rows of an earlier run up to `step` stay. */
export function openGradientLog(path: string, step: number): GradientLog {
  try {
    const [first, ...rows] = step > 0 && existsSync(path) ? readFileSync(path, 'utf8').trimEnd().split('\n') : [];
    const kept = first === head ? rows.filter((r) => Number(r.split(',')[0]) <= step) : [];
    const file = openSync(path, 'w');
    writeSync(file, `${[head, ...kept].join('\n')}\n`);
    return {
      write(at, outputs) {
        const lines = Object.entries(outputs).filter(([name]) => name.endsWith(suffix)).map(([name, { data }]) => {
          let [squares, max] = [0, 0];
          for (const v of data as Float32Array) {
            squares += v * v;
            max = Math.max(max, Math.abs(v));
          }
          const parameter = name.slice(0, -suffix.length);
          return `${at},${/[",\n]/.test(parameter) ? `"${parameter.replaceAll('"', '""')}"` : parameter},${Math.sqrt(squares)},${max}\n`;
        });
        writeSync(file, lines.join(''));
      },
      close: () => closeSync(file),
    };
  } catch (e) {
    throw new UserError(`cannot write ${path}: ${writeReason(e)}`);
  }
}
