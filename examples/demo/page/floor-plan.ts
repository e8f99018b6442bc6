/** A floor plan of a tile program: every tile a field, as dark as its memory is full at a step. */
import { fresh } from './canvas.ts';

/** What build.ts writes to tiles.json. */
export interface TileMap {
  readonly target: string;
  readonly tiles: number;
  readonly bytesPerTile: number;
  readonly samples: number;
  readonly steps: readonly {
    readonly kind: 'compute' | 'exchange';
    /** What is computed, and the ONNX nodes that it came from; of an exchange, what it is for. */
    readonly name: string;
    readonly source: readonly string[];
    /** Cycles on the worst tile. */
    readonly cycles: number;
    /** Bytes in use on each tile. */
    readonly bytes: readonly number[];
  }[];
}

/** Shows a map with a slider over its steps, and what the fullest tile holds over all of them; gives what draws them again. */
export function showTiles(map: TileMap, at: { readonly canvas: HTMLCanvasElement; readonly course: HTMLCanvasElement; readonly slider: HTMLInputElement; readonly name: HTMLElement; readonly note: HTMLElement }): () => void {
  const fullest = map.steps.map((s) => Math.max(...s.bytes));
  const most = Math.max(1, ...fullest);
  at.slider.max = String(map.steps.length - 1);
  const show = (): void => {
    const now = Number(at.slider.value);
    const step = map.steps[now]!;
    drawTiles(at.canvas, step.bytes, most);
    drawCourse(at.course, fullest, now);
    at.name.textContent = `Step ${now + 1} of ${map.steps.length}, ${step.kind}: ${step.name}${step.source.length > 0 ? ` (${step.source.slice(0, 3).join(', ')})` : ''}; ${step.cycles.toLocaleString('en')} cycles, fullest tile ${fullest[now]!.toLocaleString('en')} bytes`;
  };
  at.slider.addEventListener('input', show);
  at.note.textContent = `Kilobytes in use on each tile, and below on the fullest tile at each step. One step over ${map.samples} samples, planned for ${map.tiles} tiles of the target ${map.target} with ${map.bytesPerTile.toLocaleString('en')} bytes each: a plan, not what runs above.`;
  // The fullest moment says most.
  at.slider.value = String(fullest.indexOf(most));
  return show;
}

/** Pale where a tile holds nothing, dark where it holds most. */
function drawTiles(canvas: HTMLCanvasElement, bytes: readonly number[], most: number): void {
  const { g, width, height } = fresh(canvas);
  // Full rows of fields that are as square as can be.
  const skew = (columns: number): number => Math.abs(Math.log((width / columns) / (height / (bytes.length / columns))));
  const columns = bytes.map((_, i) => i + 1).filter((c) => bytes.length % c === 0).reduce((a, b) => (skew(b) < skew(a) ? b : a));
  const rows = bytes.length / columns;
  const [across, down] = [width / columns, height / rows];
  Object.assign(g, { textAlign: 'center', textBaseline: 'middle' });
  bytes.forEach((n, tile) => {
    const [x, y] = [(tile % columns) * across, Math.floor(tile / columns) * down];
    const share = n / most;
    g.fillStyle = `hsl(214 72% ${93 - 60 * share}%)`;
    g.beginPath();
    g.roundRect(x + 1, y + 1, across - 2, down - 2, 3);
    g.fill();
    if (across < 34) return;
    g.fillStyle = share > 0.45 ? '#fff' : '#14304f';
    g.fillText((n / 1000).toFixed(1), x + across / 2, y + down / 2);
  });
}

/** A column for each step, as high as the fullest tile is full; that of this step stands out. */
function drawCourse(canvas: HTMLCanvasElement, fullest: readonly number[], now: number): void {
  const { g, width, height, accent, quiet } = fresh(canvas);
  const most = Math.max(1, ...fullest);
  const across = width / fullest.length;
  fullest.forEach((n, step) => {
    Object.assign(g, { fillStyle: step === now ? accent : quiet, globalAlpha: step === now ? 1 : 0.4 });
    const high = Math.max(1, (n / most) * height);
    g.fillRect(step * across, height - high, Math.max(1, across - 1), high);
  });
}
