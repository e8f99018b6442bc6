/** The page of a plan, drawn in the browser. Like page-data.ts these functions are put into the page as text and use nothing but each other. */
import { aliveAt, countSteps, liveness, opRows, slicesOf, tileMemory, usedAt, type OpRow, type PagePlan, type ScalarBytes } from './page-data.ts';

/** What a page holds beside the plan. */
export interface PageData {
  readonly plan: PagePlan;
  readonly targetDescription: string;
  readonly recompute: string;
  readonly scalarBytes: ScalarBytes;
  /** Multiply-adds that a tile does in a cycle, by dtype. */
  readonly macsPerCycle: Readonly<Record<string, number>>;
  readonly clock: number;
  readonly comparison?: { readonly name: string; readonly rows: readonly { readonly group: string; readonly what: string; readonly own: number; readonly other: number }[] };
}

/** Draws everything, and again what depends on the step when another is chosen. */
export function drawPage(data: PageData): void {
  const { plan, scalarBytes } = data;
  const { memory } = plan;
  const rows = opRows(plan, data.macsPerCycle);
  const total = rows.reduce((n, r) => n + r.compute + r.exchange + r.sync, 0);
  const sum = (of: (r: OpRow) => number): number => rows.reduce((n, r) => n + of(r), 0);
  const percent = (part: number, of: number): string => `${of === 0 ? 0 : ((100 * part) / of).toFixed(1)} %`;
  const fits = memory.total <= memory.limit;
  document.title = `${plan.model} on ${plan.target}`;
  element('title').textContent = `${plan.model} on ${plan.target}`;
  element('lead').textContent = `${fits ? 'Fits' : 'Does not fit'}: ${whole(memory.total)} of ${whole(memory.limit)} bytes a tile${fits ? '' : `, ${whole(memory.total - memory.limit)} over`}; ${whole(plan.tiles)} tiles (${data.targetDescription}), ${plan.samples} samples a run, recompute ${data.recompute}`;
  element('lead').className = fits ? '' : 'over';
  fillTable('facts', ['', ''], [
    ['always live', `${whole(memory.always)} bytes`], ['not always live, at most', `${whole(memory.peak)} bytes, step ${memory.peakStep}`], ['code', `${whole(memory.code)} bytes`], ['gaps', `${whole(memory.gaps)} bytes`],
    ['cycles a sample', whole(total / plan.samples)], ['samples a second', whole((data.clock * plan.samples) / total)],
    ['compute, exchange, sync', `${percent(sum((r) => r.compute), total)}, ${percent(sum((r) => r.exchange), total)}, ${percent(sum((r) => r.sync), total)}`],
    ['utilisation', `${percent(sum((r) => r.macs), total * Math.max(...Object.values(data.macsPerCycle)))} of the multiply-adds that a tile could do in that time`],
    ...plan.notes.map((n) => ['note', n]),
  ], []);

  const byTile = tileMemory(plan, scalarBytes);
  const all = Array.from(byTile.peak, (x) => x + memory.code);
  drawChart('tiles', [{ name: 'most at any step, code included', values: all, color: 'var(--moving)' }, { name: 'always live', values: Array.from(byTile.always), color: 'var(--always)' }], memory.limit, 'tile');

  const live = liveness(plan);
  const base = live.always + memory.code;
  const chart = drawChart('steps', [{ name: 'all slots, code included', values: live.moving.map((x) => x + base), color: 'var(--moving)' }, { name: 'always live and code', values: live.moving.map(() => base), color: 'var(--always)' }], memory.limit, 'step');

  const steps = Math.max(1, countSteps(plan.steps));
  const slider = element('step') as HTMLInputElement;
  slider.max = String(steps - 1);
  slider.value = String(memory.peakStep);
  const choose = (): void => drawStep(data, Number(slider.value), chart);
  slider.addEventListener('input', choose);
  element('steps').addEventListener('click', (e) => {
    const box = element('steps').getBoundingClientRect();
    slider.value = String(Math.min(steps - 1, Math.max(0, Math.floor(((e.clientX - box.left) / box.width) * steps))));
    choose();
  });
  choose();

  const sorted = [...rows].sort((a, b) => b.compute + b.exchange + b.sync - a.compute - a.exchange - a.sync);
  const most = sorted[0] ? sorted[0].compute + sorted[0].exchange + sorted[0].sync : 1;
  fillTable('ops', ['op', 'vertex', 'first step', 'tiles', 'compute', 'exchange', 'sync', 'of all', 'utilisation', ''], sorted.map((r) => [
    r.name, r.vertex, String(r.first), whole(r.tiles), whole(r.compute), whole(r.exchange), whole(r.sync), percent(r.compute + r.exchange + r.sync, total), r.macs === 0 ? '' : percent(r.macs, r.available), [r.compute / most, r.exchange / most, r.sync / most],
  ]), [2, 3, 4, 5, 6, 7, 8]);

  const largest = plan.buffers.filter((b) => b.viewOf === undefined).sort((a, b) => b.bytes - a.bytes).slice(0, 50);
  fillTable('largest', ['bytes a tile', 'bytes in all', 'kind', 'tensor', 'type', 'steps', 'from'], largest.map((b) => [whole(b.bytes), whole(slicesOf(plan, b, scalarBytes).reduce((n, [, x]) => n + x, 0)), b.kind, b.value, `${b.dtype}[${b.shape.join(',')}]`, `${b.birth}-${b.death}`, b.source.join(', ')]), [0, 1]);

  if (!data.comparison) return element('comparison-section').remove();
  element('comparison-name').textContent = data.comparison.name;
  fillTable('comparison', ['', '', 'this plan', data.comparison.name, 'difference'], data.comparison.rows.map((r) => [r.group, r.what, whole(r.own), whole(r.other), `${r.own >= r.other ? '+' : ''}${whole(r.own - r.other)}`]), [2, 3, 4]);
}

/** Tensors, categories and the tile map at a step. */
export function drawStep(data: PageData, step: number, chart: SVGSVGElement): void {
  const { plan } = data;
  const alive = aliveAt(plan, step);
  const held = alive.reduce((n, b) => n + b.bytes, 0);
  element('chosen').textContent = `step ${step}: ${whole(held)} bytes in ${alive.length} tensors${step === plan.memory.peakStep ? ', the peak' : ''}`;
  const steps = Math.max(1, countSteps(plan.steps));
  const marker = chart.querySelector('.marker')!;
  for (const x of ['x1', 'x2']) marker.setAttribute(x, String(((step + 0.5) / steps) * 1000));
  const kinds = new Map<string, number>();
  for (const b of alive) kinds.set(b.kind, (kinds.get(b.kind) ?? 0) + b.bytes);
  const all = held + plan.memory.code;
  const categories = [...kinds, ['code', plan.memory.code] as const].sort((a, b) => b[1] - a[1]);
  fillTable('categories', ['category', 'bytes a tile', ''], categories.map(([kind, n]) => [kind, whole(n), [n / all]]), [1]);
  fillTable('alive', ['bytes a tile', 'kind', 'tensor', 'type', 'steps', 'from'], alive.map((b) => [whole(b.bytes), b.kind, b.value, `${b.dtype}[${b.shape.join(',')}]`, `${b.birth}-${b.death}`, b.source.join(', ')]), [0]);
  drawMap(plan, usedAt(plan, step, data.scalarBytes));
}

/** The floor plan: a near-square of tiles in the order of their numbers, by the bytes that each uses. */
export function drawMap(plan: PagePlan, used: Float64Array): void {
  const canvas = element('map') as HTMLCanvasElement;
  const columns = Math.ceil(Math.sqrt(plan.tiles));
  const lines = Math.ceil(plan.tiles / columns);
  const cell = Math.max(2, Math.floor(640 / columns));
  canvas.width = columns * cell;
  canvas.height = lines * cell;
  const context = canvas.getContext('2d')!;
  const most = used.reduce((a, x) => Math.max(a, x), 0);
  used.forEach((bytes, tile) => {
    context.fillStyle = bytes === 0 ? 'rgb(128 128 128 / 15%)' : `hsl(${Math.round(210 - (180 * bytes) / most)} 70% 50%)`;
    context.fillRect((tile % columns) * cell, Math.floor(tile / columns) * cell, Math.max(1, cell - 1), Math.max(1, cell - 1));
  });
  const mean = used.reduce((n, x) => n + x, 0) / used.length;
  const describe = `most ${whole(most)} bytes on tile ${used.indexOf(most)}, mean ${whole(mean)}, ${whole(used.filter((x) => x === 0).length)} tiles hold nothing`;
  element('map-text').textContent = describe;
  canvas.onmousemove = (e) => {
    const box = canvas.getBoundingClientRect();
    const tile = Math.floor(((e.clientY - box.top) / box.height) * lines) * columns + Math.floor(((e.clientX - box.left) / box.width) * columns);
    element('map-text').textContent = tile < plan.tiles ? `tile ${tile}: ${whole(used[tile]!)} bytes; ${describe}` : describe;
  };
}

/** Stepped areas over numbered places, a line at the limit, and a marker. */
export function drawChart(id: string, series: readonly { readonly name: string; readonly values: readonly number[]; readonly color: string }[], limit: number, place: string): SVGSVGElement {
  const top = Math.max(...series.flatMap((s) => s.values.reduce((a, x) => Math.max(a, x), 0)), 1);
  const shown = Math.max(top, limit <= 4 * top ? limit : 0) * 1.05;
  const y = (v: number): string => (200 - (200 * v) / shown).toFixed(2);
  const areas = series.map(({ values, color }) => {
    const points = values.map((v, i) => `L${((1000 * i) / values.length).toFixed(2)} ${y(v)}L${((1000 * (i + 1)) / values.length).toFixed(2)} ${y(v)}`);
    return `<path fill="${color}" d="M0 200${points.join('')}L1000 200Z"/>`;
  });
  const line = limit <= shown ? `<line class="limit" x1="0" x2="1000" y1="${y(limit)}" y2="${y(limit)}"/>` : '';
  const svg = element(id) as unknown as SVGSVGElement;
  svg.innerHTML = `${areas.join('')}${line}<line class="marker" y1="0" y2="200" x1="-9" x2="-9"/>`;
  const legend = series.map((s) => `<i style="background:${s.color}"></i> ${s.name}, at most ${whole(s.values.reduce((a, x) => Math.max(a, x), 0))}`);
  element(`${id}-legend`).innerHTML = `${legend.join(' ')} <i class="limit"></i> limit ${whole(limit)} bytes${limit <= shown ? '' : ' (above the chart)'}; across: ${place} 0 to ${series[0]!.values.length - 1}`;
  return svg;
}

/** Fills a table. Cells are text, or shares that are drawn as bars. */
export function fillTable(id: string, head: readonly string[], rows: readonly (readonly (string | readonly number[])[])[], right: readonly number[]): void {
  const table = element(id);
  table.replaceChildren();
  const add = (parent: HTMLElement, name: string, text = ''): HTMLElement => {
    const made = document.createElement(name);
    made.textContent = text;
    parent.append(made);
    return made;
  };
  if (head.some((h) => h !== '')) {
    const line = add(add(table, 'thead'), 'tr');
    head.forEach((h, i) => (add(line, 'th', h).className = right.includes(i) ? 'right' : ''));
  }
  const body = add(table, 'tbody');
  for (const row of rows) {
    const line = add(body, 'tr');
    row.forEach((x, i) => {
      if (typeof x === 'string') return void (add(line, 'td', x).className = right.includes(i) ? 'right' : '');
      const bar = add(add(line, 'td'), 'span');
      bar.className = 'bar';
      x.forEach((share, k) => {
        const piece = add(bar, 'span');
        piece.className = `piece${k}`;
        piece.style.width = `${(100 * share).toFixed(2)}%`;
      });
    });
  }
}

/** The element of an id that the page has. */
export function element(id: string): HTMLElement {
  return document.getElementById(id)!;
}

/** A number without decimals, thousands apart. */
export function whole(n: number): string {
  return Math.round(n).toLocaleString('en-US');
}
