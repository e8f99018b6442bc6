/** Line charts as SVG files, for the pages of docs/. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { init } from 'echarts';

/** A line of a chart. `band`: the least and the largest value at each point, drawn as a shade behind the line. */
export interface Line {
  readonly name: string;
  readonly points: readonly (readonly [x: number, y: number])[];
  readonly band?: readonly (readonly [x: number, low: number, high: number])[];
  readonly dashed?: boolean;
}

export interface Panel {
  readonly title: string;
  readonly x: string;
  readonly y: string;
  readonly lines: readonly Line[];
  /** Axes that grow by factors. */
  readonly log?: readonly ('x' | 'y')[];
}

const colours = ['#1f6feb', '#d1570c', '#2da44e', '#8250df', '#bf3989', '#57606a', '#9a6700', '#0a7ea4'];
const [width, height, gap] = [460, 330, 70] as const;

/** Panels side by side, `columns` in a row; lines of one name have one colour in all of them. */
export function chart(title: string, panels: readonly Panel[], columns = 2): string {
  const across = Math.min(columns, panels.length);
  const rows = Math.ceil(panels.length / across);
  const names = [...new Set(panels.flatMap((p) => p.lines.map((l) => l.name)))];
  const colour = (name: string): string => colours[names.indexOf(name) % colours.length]!;
  const drawing = init(null, null, { renderer: 'svg', ssr: true, width: across * width, height: 60 + rows * height });
  const axis = (p: Panel, which: 'x' | 'y', gridIndex: number): object => ({
    type: p.log?.includes(which) ? 'log' : 'value', name: p[which], nameLocation: 'middle', nameGap: which === 'x' ? 26 : 46, gridIndex, scale: true, min: 'dataMin', max: 'dataMax',
    axisLabel: { formatter: (v: number) => String(Number(v.toPrecision(3))) },
  });
  drawing.setOption({
    animation: false,
    backgroundColor: '#fff',
    title: [{ text: title, left: 'center', top: 4, textStyle: { fontSize: 16 } }, ...panels.map((p, i) => ({ text: p.title, left: (i % across) * width + gap, top: 58 + Math.floor(i / across) * height, textStyle: { fontSize: 12 } }))],
    legend: { top: 30, data: names },
    grid: panels.map((_, i) => ({ left: (i % across) * width + gap, top: 82 + Math.floor(i / across) * height, width: width - gap - 25, height: height - 82 })),
    xAxis: panels.map((p, i) => axis(p, 'x', i)),
    yAxis: panels.map((p, i) => axis(p, 'y', i)),
    series: panels.flatMap((p, i) => p.lines.flatMap((l) => [...shade(l, i, colour(l.name)), {
      type: 'line', name: l.name, xAxisIndex: i, yAxisIndex: i, data: l.points, symbolSize: 5, showSymbol: l.points.length <= 40, color: colour(l.name), lineStyle: { width: 2, type: l.dashed ? 'dashed' : 'solid' },
    }])),
  });
  const svg = drawing.renderToSVGString();
  drawing.dispose();
  return svg;
}

/** Two stacked areas of which the upper one is seen. */
function shade({ name, band }: Line, panel: number, colour: string): object[] {
  if (!band) return [];
  const area = { type: 'line', xAxisIndex: panel, yAxisIndex: panel, stack: `${panel} ${name}`, symbol: 'none', silent: true, lineStyle: { opacity: 0 }, color: colour };
  return [{ ...area, data: band.map(([x, low]) => [x, low]) }, { ...area, data: band.map(([x, low, high]) => [x, high - low]), areaStyle: { opacity: 0.15 } }];
}

/** Writes a chart to a file, and its folder if need be. */
export function writeChart(path: string, title: string, panels: readonly Panel[], columns = 2): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, chart(title, panels, columns));
}
