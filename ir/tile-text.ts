/** Prints tile programs as text: a plan's cuts, spreads, buffers and steps, then the graph whose ops the steps run. `tile-parse.ts` reads it back; docs/tiles.md explains it. */
import type { Graph } from './graph.ts';
import { printGraph, type PrintOptions } from './text.ts';
import type { Comb, Cut, Division, RegionInParts, Spread, StepCycles, TilePlan, TileStep } from './tiles.ts';
import type { Tensor } from './type.ts';

/** What tiles run: a graph, and the plan that was made for it. */
export interface TileProgramText { readonly graph: Graph; readonly plan: TilePlan }

/** The text of a tile program, and its large tensors as `printGraph` gives them. `parseTileProgram(text, tensors)` gives an equal program. */
export function printTileProgram({ graph, plan }: TileProgramText, options: PrintOptions = { locations: true }): { readonly text: string; readonly tensors: ReadonlyMap<string, Tensor> } {
  const { text, tensors } = printGraph(graph, options);
  return { text: `${planText(plan)}${text}`, tensors };
}

/** Spreads and divisions name the cuts, and buffers and steps the spreads, that are listed before them. */
function planText(plan: TilePlan): string {
  const cuts = table('c');
  const spreads = table('s');
  const cut = (c: Cut): string => cuts.of(c, () => cutText(c));
  const spread = (s: Spread): string => spreads.of(s, () => `${placeText(s)} [${s.axes.map(cut).join(', ')}]${s.flat ? ' flat' : ''}`);
  const access = (list: readonly { readonly buffer: number; readonly slice: Spread }[]): string => `(${list.map((a) => `${a.buffer} ${spread(a.slice)}`).join(', ')})`;
  const division = (d: Division): string => `${placeText(d)} [${Object.entries(d.ranges).map(([name, c]) => `${nameText(name)} ${cut(c)}`).join(', ')}]${d.flat ? ' flat' : ''}`;

  const buffers = plan.buffers.map((b) => {
    const facts = pairs({ width: b.width, bytes: b.bytes, offset: b.offset, birth: b.birth, death: b.death });
    return `  buffer ${b.id} ${b.kind} ${JSON.stringify(b.value)}: ${b.dtype}[${b.shape.join(',')}] ${spread(b.spread)} ${facts}${b.viewOf === undefined ? '' : ` view ${b.viewOf}`}${sourceText(b.source)}`;
  });
  const step = (s: TileStep, indent: string): string[] => {
    switch (s.kind) {
      case 'repeat': return [`${indent}repeat ${s.index} times ${s.times} {`, ...s.body.flatMap((inner) => step(inner, `${indent}  `)), `${indent}}`];
      case 'exchange': return [`${indent}exchange ${s.index} (${s.copies.map((c) => `${c.from} to ${c.to}${c.merge ? ' merge' : ''}`).join(', ')}) ${pairs({ ...cyclesOf(s.cycles), bytes: s.bytes, largest: s.largest, code: s.code })}`];
      case 'compute': return [
        `${indent}compute ${s.index} ${s.part} of ${s.op} ${JSON.stringify(s.name)} as ${JSON.stringify(s.root)} by ${JSON.stringify(s.vertex)} ${pairs({ ...cyclesOf(s.cycles), code: s.code, macs: s.macs })}${sourceText(s.source)}`,
        `${indent}  divided ${division(s.division)}`,
        `${indent}  reads ${access(s.reads)} writes ${access(s.writes)}`,
      ];
    }
  };
  const steps = plan.steps.flatMap((s) => step(s, '  '));
  const { tiles, bytesPerTile, grain, samples, vertexTypeBytes } = plan;
  return [
    `plan ${JSON.stringify(plan.model)} of ${JSON.stringify(plan.graph)} {`,
    `  target ${JSON.stringify(plan.target)} ${pairs({ tiles, bytesPerTile, grain, samples, vertexTypeBytes })}`,
    ...(plan.onnx === undefined ? [] : [`  onnx ${JSON.stringify(plan.onnx)}`]),
    ...(plan.inParts ? [`  parts of ${JSON.stringify(plan.inParts.of)}`, ...plan.inParts.regions.map(regionText)] : []),
    `  memory ${pairs({ ...plan.memory })}`,
    ...plan.notes.map((n) => `  note ${JSON.stringify(n)}`),
    ...cuts.lines('cut'),
    ...spreads.lines('spread'),
    ...buffers,
    ...steps,
    '}',
    '',
  ].join('\n');
}

function regionText({ from, axis, parts, first, last, again, bands }: RegionInParts): string {
  const value = 'op' in from ? `op ${from.op} result ${from.result}` : 'input' in from ? `input ${from.input}` : `state ${from.state}`;
  return `  region ${value} ${pairs({ axis, parts, first, last })} again ${again}${bands ? ' bands' : ''}`;
}

/** Texts that are listed once, by a name each. */
function table(prefix: string): { of(key: object, text: () => string): string; lines(word: string): string[] } {
  const byObject = new Map<object, string>();
  const byText = new Map<string, string>();
  return {
    of(key, make) {
      const seen = byObject.get(key);
      if (seen !== undefined) return seen;
      const text = make();
      const name = byText.get(text) ?? `${prefix}${byText.size}`;
      byText.set(text, name);
      byObject.set(key, name);
      return name;
    },
    lines: (word) => [...byText].map(([text, name]) => `  ${word} ${name} ${text}`),
  };
}

/** `by [0] 4 [0,8,1] step 8, [32]`: combs that lie equally far from each other are one entry, of so many. */
function cutText({ by, combs }: Cut): string {
  const entries: string[] = [];
  for (let i = 0; i < combs.length;) {
    const first = combs[i]!;
    const step = i + 1 < combs.length ? combs[i + 1]!.base - first.base : 0;
    let n = 1;
    while (i + n < combs.length && combs[i + n]!.base === first.base + n * step && sameLevels(combs[i + n]!, first)) n++;
    entries.push(n > 1 ? `${n} ${combText(first)} step ${step}` : combText(first));
    i += n;
  }
  return `by [${by.join(',')}] ${entries.join(', ')}`;
}

const combText = (c: Comb): string => `[${[c.base, ...c.levels.flatMap((l) => [l.n, l.step])].join(',')}]`;
const sameLevels = (a: Comb, b: Comb): boolean => a.levels.length === b.levels.length && a.levels.every((l, i) => l.n === b.levels[i]!.n && l.step === b.levels[i]!.step);

/** `at 0 over (n 4 stride 16, k 2 stride 0 time)` */
const placeText = (s: Spread | Division): string => `at ${s.base} over (${s.dims.map((d) => `${nameText(d.name)} ${d.parts} stride ${d.stride}${d.time ? ' time' : ''}`).join(', ')})`;
const cyclesOf = ({ compute, exchange, sync }: StepCycles): StepCycles => ({ compute, exchange, sync });
const pairs = (facts: Readonly<Record<string, number>>): string => `{${Object.entries(facts).map(([k, v]) => `${k}=${v}`).join(', ')}}`;
/** A name that the lexer reads as one word stands as it is. */
const nameText = (name: string): string => (/^(?!(?:inf|nan)$)[A-Za-z_]\w*$/.test(name) ? name : JSON.stringify(name));
const sourceText = (source: readonly string[]): string => (source.length === 0 ? '' : ` // from ${source.map((s) => JSON.stringify(s)).join(', ')}`);
