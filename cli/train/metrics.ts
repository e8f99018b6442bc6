/** What a run has reached, epoch by epoch: metrics.csv and a picture of it. */
import { existsSync, readFileSync } from 'node:fs';
import { writeAtomically } from '../../runtime/files.ts';

export interface EpochMetrics {
  readonly epoch: number;
  readonly step: number;
  readonly lr: number;
  readonly loss: number;
  readonly evalLoss: number | undefined;
  readonly evalAccuracy: number | undefined;
  readonly seconds: number;
}

const columns = ['epoch', 'step', 'lr', 'loss', 'eval_loss', 'eval_accuracy', 'seconds'] as const;

export const metricsText = (rows: readonly EpochMetrics[]): string =>
  `${[columns.join(','), ...rows.map((r) => [r.epoch, r.step, r.lr, r.loss, r.evalLoss ?? '', r.evalAccuracy ?? '', r.seconds.toFixed(3)].join(','))].join('\n')}\n`;

/** The rows of an earlier run up to a step: those that a resumed run goes on from. */
export function readMetrics(path: string, step: number): EpochMetrics[] {
  if (!existsSync(path)) return [];
  const [head, ...lines] = readFileSync(path, 'utf8').trim().split('\n');
  if (head !== columns.join(',')) return [];
  const optional = (text: string | undefined): number | undefined => (text === undefined || text === '' ? undefined : Number(text));
  const rows = lines.map((line): EpochMetrics => {
    const cells = line.split(',');
    const [epoch, at, lr, loss] = cells.map(Number) as [number, number, number, number];
    return { epoch, step: at, lr, loss, evalLoss: optional(cells[4]), evalAccuracy: optional(cells[5]), seconds: Number(cells[6]) };
  });
  return rows.filter((r) => r.step <= step);
}

/** Writes both files. */
export async function writeMetrics(paths: { readonly table: string; readonly picture: string }, rows: readonly EpochMetrics[], title: string): Promise<void> {
  const bytes = (text: string): Uint8Array[] => [new TextEncoder().encode(text)];
  await writeAtomically(paths.table, bytes(metricsText(rows)));
  await writeAtomically(paths.picture, bytes(metricsPicture(rows, title)));
}

interface Curve {
  readonly name: string;
  readonly colour: string;
  readonly dash?: string;
  readonly points: readonly (readonly [epoch: number, value: number])[];
  readonly top: number;
  readonly show: (value: number) => string;
}

const size = { width: 720, height: 360, left: 60, right: 60, top: 40, bottom: 46 } as const;

/** Losses on the left axis, accuracy on the right one, over epochs. */
export function metricsPicture(rows: readonly EpochMetrics[], title: string): string {
  const points = (of: (r: EpochMetrics) => number | undefined): [number, number][] => rows.flatMap((r): [number, number][] => (of(r) === undefined ? [] : [[r.epoch, of(r)!]]));
  const largest = Math.max(1e-9, ...rows.flatMap((r) => [r.loss, r.evalLoss ?? 0]));
  const number = (v: number): string => v.toPrecision(3);
  const curves: Curve[] = [
    { name: 'loss', colour: '#1f6feb', points: points((r) => r.loss), top: largest, show: number },
    { name: 'evaluation loss', colour: '#1f6feb', dash: '5 4', points: points((r) => r.evalLoss), top: largest, show: number },
    { name: 'accuracy', colour: '#d1570c', points: points((r) => r.evalAccuracy), top: 1, show: (v: number) => `${(100 * v).toFixed(0)} %` },
  ].filter((c) => c.points.length > 0);
  const last = Math.max(1, ...rows.map((r) => r.epoch));
  const x = (epoch: number): number => size.left + ((size.width - size.left - size.right) * (epoch - 1)) / Math.max(1, last - 1);
  const y = (share: number): number => size.height - size.bottom - (size.height - size.top - size.bottom) * share;
  const text = (at: readonly [number, number], anchor: string, words: string, colour = '#444'): string => `<text x="${at[0].toFixed(1)}" y="${at[1].toFixed(1)}" text-anchor="${anchor}" fill="${colour}">${escape(words)}</text>`;
  const lines = [0, 0.25, 0.5, 0.75, 1].flatMap((share) => [
    `<line x1="${size.left}" x2="${size.width - size.right}" y1="${y(share)}" y2="${y(share)}" stroke="#ddd"/>`,
    text([size.left - 8, y(share) + 4], 'end', number(share * largest)),
    ...(curves.some((c) => c.name === 'accuracy') ? [text([size.width - size.right + 8, y(share) + 4], 'start', `${100 * share} %`)] : []),
  ]);
  const drawn = curves.flatMap((c, i) => {
    const at = c.points.map(([e, v]) => `${x(e).toFixed(1)},${y(v / c.top).toFixed(1)}`);
    return [
      `<polyline points="${at.join(' ')}" fill="none" stroke="${c.colour}" stroke-width="2"${c.dash === undefined ? '' : ` stroke-dasharray="${c.dash}"`}/>`,
      ...at.map((p) => `<circle cx="${p.split(',')[0]}" cy="${p.split(',')[1]}" r="2.5" fill="${c.colour}"/>`),
      text([size.left + 200 * i, size.height - 10], 'start', `${c.dash === undefined ? '—' : '- -'} ${c.name}, last ${c.show(c.points.at(-1)![1])}`, c.colour),
    ];
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${size.width}" height="${size.height}" viewBox="0 0 ${size.width} ${size.height}" font-family="sans-serif" font-size="12">`,
    `<rect width="100%" height="100%" fill="#fff"/>`,
    text([size.left, 22], 'start', title, '#111'), text([x(1), size.height - size.bottom + 16], 'middle', '1'),
    ...(last > 1 ? [text([x(last), size.height - size.bottom + 16], 'middle', `epoch ${last}`)] : []),
    ...lines, ...drawn, '</svg>', '',
  ].join('\n');
}

const escape = (text: string): string => text.replace(/[&<>]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;' })[c]!);
