/** The report of a GPU as Markdown. */
import type { Failure } from './stages.ts';

/** Two results that have to be equal, but for rounding. */
export interface Check {
  readonly name: string;
  readonly against: string;
  /** Largest difference, relative to the largest number; undefined where only equality is known. */
  readonly difference: number | undefined;
  readonly equal: boolean;
}

export interface Timing {
  readonly name: string;
  /** Median of the runs. */
  readonly ms: number;
  readonly rate: number;
  readonly unit: string;
  readonly remark: string;
}

export interface Report {
  readonly adapter: string;
  /** The adapter computes on the CPU. */
  readonly software: boolean;
  readonly quick: boolean;
  readonly runs: number;
  readonly version: string;
  readonly node: string;
  readonly system: string;
  readonly checks: readonly Check[];
  readonly timings: readonly Timing[];
  /** Stages that did not come to their end, and those that have not begun; both empty in a whole report. */
  readonly failures: readonly Failure[];
  readonly pending: readonly string[];
}

/** Whether an adapter of this name computes on the CPU. */
export const isSoftware = (adapter: string): boolean => /swiftshader|llvmpipe|lavapipe|software|\bcpu\b|basic render/i.test(adapter);

/** The adapter and how much of it is measured, in short. */
export const describeRun = ({ adapter, quick, runs }: Pick<Report, 'adapter' | 'quick' | 'runs'>): string => `${adapter}${quick ? ', --quick' : ''}, median of ${runs} ${runs === 1 ? 'run' : 'runs'}`;

/** The report, with a table of times and one of checks. */
export function markdown(report: Report): string {
  const cell = (text: string): string => text.replaceAll('|', '\\|');
  const row = (...cells: readonly string[]): string => `| ${cells.map(cell).join(' | ')} |`;
  const { adapter, software, quick, version, node, system, checks, timings, failures, pending } = report;
  return [
    `# ${adapter}`,
    '',
    `${describeRun(report)}; ${version}, Node ${node}, ${system}.`,
    ...(software ? ['', 'This adapter computes on the CPU. Its times rank nothing.'] : quick ? ['', 'Small sizes: these times rank nothing.'] : []),
    '',
    row('what', 'ms', 'rate', 'remark'),
    '|---|---:|---:|---|',
    ...timings.map((t) => row(t.name, t.ms.toFixed(t.ms < 10 ? 3 : 1), `${rateOf(t.rate)} ${t.unit}`, t.remark)),
    '',
    row('result', 'compared with', 'largest difference, relative', 'equal'),
    '|---|---|---:|---|',
    ...checks.map((c) => row(c.name, c.against, c.difference === undefined ? '' : c.difference.toExponential(1), c.equal ? 'yes' : 'NO')),
    ...(failures.length > 0 ? ['', row('stage that failed', 'why'), '|---|---|', ...failures.map((f) => row(f.stage, f.error.replace(/\s+/g, ' ')))] : []),
    ...(pending.length > 0 ? ['', `Not done yet: ${pending.join('; ')}.`] : []),
  ].join('\n');
}

/** Four digits, and no exponent where a number is large. */
const rateOf = (rate: number): string => (rate >= 1000 ? Math.round(rate).toLocaleString('en-US') : rate.toPrecision(4));
