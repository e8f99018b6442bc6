/** A floor plan of a tile program: every tile a square, as full as its memory is at a step. */

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

/** Shows a map with a slider over its steps. */
export function showTiles(map: TileMap, at: { readonly canvas: HTMLCanvasElement; readonly slider: HTMLInputElement; readonly name: HTMLElement; readonly note: HTMLElement }): void {
  const most = Math.max(1, ...map.steps.flatMap((s) => s.bytes));
  at.slider.max = String(map.steps.length - 1);
  const show = (): void => {
    const step = map.steps[Number(at.slider.value)]!;
    draw(at.canvas, step.bytes, most);
    const full = Math.max(...step.bytes);
    at.name.textContent = `Step ${Number(at.slider.value) + 1} of ${map.steps.length}, ${step.kind}: ${step.name}${step.source.length > 0 ? ` (${step.source.slice(0, 3).join(', ')})` : ''}; ${step.cycles.toLocaleString('en')} cycles, fullest tile ${full.toLocaleString('en')} bytes`;
  };
  at.slider.addEventListener('input', show);
  at.note.textContent = `One step over ${map.samples} samples, planned for ${map.tiles} tiles of the target ${map.target}, ${map.bytesPerTile.toLocaleString('en')} bytes each; the darkest colour is ${most.toLocaleString('en')} bytes. A plan, not what runs above.`;
  // The fullest moment says most.
  at.slider.value = String(map.steps.findIndex((s) => s.bytes.includes(most)));
  show();
}

function draw(canvas: HTMLCanvasElement, bytes: readonly number[], most: number): void {
  const { width, height } = canvas;
  const g = canvas.getContext('2d')!;
  g.clearRect(0, 0, width, height);
  const columns = Math.ceil(Math.sqrt((bytes.length * width) / height));
  const rows = Math.ceil(bytes.length / columns);
  const edge = Math.min(width / columns, height / rows);
  g.font = `${Math.floor(edge / 4)}px system-ui, sans-serif`;
  bytes.forEach((n, tile) => {
    const [x, y] = [(tile % columns) * edge, Math.floor(tile / columns) * edge];
    const share = n / most;
    g.fillStyle = `hsl(212 70% ${92 - 62 * share}%)`;
    g.fillRect(x + 1, y + 1, edge - 2, edge - 2);
    if (edge < 30) return;
    g.fillStyle = share > 0.5 ? '#fff' : '#234';
    g.fillText(n < 1000 ? String(n) : `${(n / 1000).toFixed(1)}k`, x + 5, y + edge / 2);
  });
}
