/** The power decomposition over depth as one HTML file that needs nothing else. */
import type { PowerParts } from '../../passes/norm/channel-statistics.ts';

export interface LayerPower extends PowerParts {
  readonly node: string;
  readonly channels: number;
}

/** What was measured under one normalization. */
export interface VariantPower {
  readonly norm: string;
  readonly layers: readonly LayerPower[];
}

const colours = ['#1f6feb', '#d1570c', '#2da44e', '#8250df', '#bf3989', '#57606a', '#9a6700', '#0a7ea4'];
const panels = [
  ['p1', 'P1: squared mean of the instance mean', 'near 1: channels are constant, whatever the sample (collapse)'],
  ['p2', 'P2: variance of the instance mean', 'near 0: samples are told apart by nothing but their patterns'],
  ['p3', 'P3: squared mean of the instance deviation', 'what varies over the positions of each sample'],
  ['p4', 'P4: variance of the instance deviation', 'near 0: every sample has the same contrast'],
] as const;
const size = { width: 520, height: 300, left: 48, right: 16, top: 44, bottom: 40 } as const;

/** Four panels over depth, one line a normalization, and the numbers. `about` says what was measured on which data. */
export function healthPage(title: string, about: string, variants: readonly VariantPower[]): string {
  return [
    '<!doctype html>', '<html lang="en"><head><meta charset="utf-8">', `<title>${escape(title)}</title>`,
    '<style>body{font-family:sans-serif;margin:2em;color:#222}.panels{display:flex;flex-wrap:wrap;gap:1em}table{border-collapse:collapse;margin-top:1em;font-size:13px}td,th{padding:2px 10px;text-align:right;border-bottom:1px solid #eee}td:first-child,th:first-child{text-align:left}.legend span{margin-right:1.5em;font-weight:bold}</style>',
    '</head><body>', `<h1>${escape(title)}</h1>`, `<p>${escape(about)}</p>`,
    `<p class="legend">${variants.map((v, i) => `<span style="color:${colourOf(i)}">${escape(v.norm)}</span>`).join('')}</p>`,
    '<div class="panels">', ...panels.map(([part, name, why]) => panel(part, name, why, variants)), '</div>',
    ...variants.map(numbers), '</body></html>', '',
  ].join('\n');
}

const colourOf = (i: number): string => colours[i % colours.length]!;

function panel(part: keyof PowerParts, name: string, why: string, variants: readonly VariantPower[]): string {
  const depth = Math.max(...variants.map((v) => v.layers.length));
  const top = Math.max(1e-6, ...variants.flatMap((v) => v.layers.map((l) => l[part])));
  const ceiling = top > 0.5 ? Math.max(1, top) : top;
  const x = (layer: number): number => size.left + ((size.width - size.left - size.right) * layer) / Math.max(1, depth - 1);
  const y = (value: number): number => size.height - size.bottom - ((size.height - size.top - size.bottom) * value) / ceiling;
  const text = (at: readonly [number, number], anchor: string, words: string, more = ''): string => `<text x="${at[0].toFixed(1)}" y="${at[1].toFixed(1)}" text-anchor="${anchor}"${more}>${escape(words)}</text>`;
  const grid = [0, 0.25, 0.5, 0.75, 1].flatMap((share) => [
    `<line x1="${size.left}" x2="${size.width - size.right}" y1="${y(share * ceiling).toFixed(1)}" y2="${y(share * ceiling).toFixed(1)}" stroke="#ddd"/>`,
    text([size.left - 6, y(share * ceiling) + 4], 'end', (share * ceiling).toPrecision(2)),
  ]);
  const lines = variants.flatMap((v, i) => [
    `<polyline fill="none" stroke="${colourOf(i)}" stroke-width="2" points="${v.layers.map((l, k) => `${x(k).toFixed(1)},${y(l[part]).toFixed(1)}`).join(' ')}"/>`,
    ...v.layers.map((l, k) => `<circle cx="${x(k).toFixed(1)}" cy="${y(l[part]).toFixed(1)}" r="3" fill="${colourOf(i)}"><title>${escape(`${v.norm}, ${l.node}: ${l[part].toPrecision(4)}`)}</title></circle>`),
  ]);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${size.width}" height="${size.height}" viewBox="0 0 ${size.width} ${size.height}" font-family="sans-serif" font-size="11">`,
    text([size.left, 16], 'start', name, ' font-size="14" font-weight="bold"'), text([size.left, 32], 'start', why, ' fill="#666"'),
    ...grid, text([x(0), size.height - 20], 'middle', '1'), text([x(depth - 1), size.height - 20], 'middle', String(depth)), text([size.width / 2, size.height - 6], 'middle', 'normalization, by depth'),
    ...lines, '</svg>',
  ].join('');
}

function numbers({ norm, layers }: VariantPower): string {
  const row = (l: LayerPower): string => `<tr><td>${escape(l.node)}</td>${[l.channels, ...[l.p1, l.p2, l.p3, l.p4, l.p1 + l.p2 + l.p3 + l.p4].map((p) => p.toFixed(4))].map((cell) => `<td>${cell}</td>`).join('')}</tr>`;
  return `<details><summary>${escape(norm)}: numbers</summary><table><tr><th>node</th><th>channels</th><th>P1</th><th>P2</th><th>P3</th><th>P4</th><th>sum</th></tr>${layers.map(row).join('')}</table></details>`;
}

const escape = (text: string): string => text.replace(/[&<>"]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c]!);
