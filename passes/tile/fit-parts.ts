/** Where nothing else fits: regions of the graph in parts, first its samples, then what is held at the fullest step. */
import type { Graph } from '../../ir/graph.ts';
import type { Again, RegionInParts, TilePlan } from '../../ir/tiles.ts';
import { narrowing } from './fit.ts';
import { leastBytes } from './least.ts';
import { narrowed, sampleRegion, withRegions } from './parts/narrow.ts';
import { digest, type Planned } from './plan.ts';
import type { Recompute } from './recompute.ts';
import { usableBytes, type TileTarget } from './target.ts';
import type { Setting, Trials } from './trials.ts';

/** What regions are looked for in. */
export interface PartsSearch {
  readonly target: TileTarget;
  readonly batch: number;
  /** Levels of recomputation, the least first. */
  readonly levels: readonly Recompute[];
  /** Shares of a tile for the temporaries of an op, the widest first. */
  readonly temporary: readonly number[];
  /** The graph of a level, before anything is in parts. */
  graphAt(recompute: Recompute): Graph;
  /** Plans another graph in place of the one of a setting. */
  planAt(graph: Graph, setting: Setting): Planned;
}

/** Ops of all graphs that are planned to find a number of samples, and to find regions: what takes seconds. */
const [mostSampleOps, mostRegionOps] = [12_000, 30_000];
/** Ops of the largest graph in parts that is planned: one plan of more takes tens of seconds. */
const largestGraph = 4000;
/** Regions that have to be within reach, for a search to be worth its time. */
const fewestRegions = 20;
/** How often regions around the fullest step are put in parts. */
const rounds = 8;
/** Code of a plan in parts, of what one of the whole takes, at least. */
const codeKept = 0.9;

/** Tries levels of recomputation at one batch until one fits; where none does and `parts` may be, with regions in parts. */
export function fitBatch(trials: Trials, search: PartsSearch, parts: boolean): void {
  for (const recompute of search.levels) if (narrowing(trials, { batch: search.batch, recompute }, search.temporary).fits) return;
  if (parts) fitParts(trials, search);
}

/**
 * Plans with regions in parts, after trials of the same batch without: for each level of recomputation the fewest parts of the samples that fit, and where none do, regions around the fullest step of the
 * smallest plan, until it fits or nothing is won. What cannot fit by what is alive between ops is not planned.
 */
export function fitParts(trials: Trials, search: PartsSearch): void {
  fitSamples(trials, search);
  if (!trials.best) fitRegions(trials, search);
}

function fitSamples(trials: Trials, { target, batch, levels, temporary, graphAt }: PartsSearch): void {
  const { memory } = trials.smallest!.trial;
  const room = usableBytes(target) - codeKept * memory.code;
  // State and code are there whatever is in parts.
  if (memory.always > room) return;
  let ops = mostSampleOps;
  // More parts than fit already take longer.
  let most = Infinity;
  const seen = new Set<string>();
  for (const recompute of levels) {
    const graph = graphAt(recompute);
    const text = digest(graph);
    if (seen.has(text)) continue;
    seen.add(text);
    let before = 0;
    for (const again of ['none', 'light', 'all'] as const) {
      const variants = samplesIn(graph, again, ops).filter((v) => v.parts < most);
      // Where no sum joins the samples nothing is computed again.
      const size = variants.reduce((n, v) => n + v.graph.ops.length, 0);
      if (size === before) break;
      before = size;
      const first = variants.findIndex((v) => leastOf(v.graph, target) <= room);
      const last = variants.length - 1;
      let [low, high] = [first < 0 ? last : first, last];
      while (low >= 0 && low <= high) {
        const middle = (low + high) >> 1;
        const { graph: made, parts, region } = variants[middle]!;
        if (made.ops.length > ops) {
          high = middle - 1;
          continue;
        }
        const planned = trials.all.length;
        if (narrowing(trials, { batch, recompute, regions: [region] }, temporary).fits) [high, most] = [middle - 1, parts];
        else low = middle + 1;
        ops -= made.ops.length * (trials.all.length - planned);
      }
    }
  }
}

/** A graph with its samples in parts. */
interface InSamples { readonly parts: number; readonly region: RegionInParts; readonly graph: Graph }

/** All numbers of parts that samples divide into, the fewest first, as far as the graphs have at most so many ops. */
function samplesIn(graph: Graph, again: Again, ops: number): InSamples[] {
  const whole = sampleRegion(graph, { again });
  const counts = whole ? Array.from({ length: whole.parts - 1 }, (_, i) => i + 2).filter((n) => whole.parts % n === 0 && n * graph.ops.length <= Math.min(ops, largestGraph)) : [];
  return counts.flatMap((parts) => {
    const region = { ...whole!, parts };
    const made = withRegions(graph, [region]);
    return made ? [{ parts, region, graph: made }] : [];
  });
}

/** Bytes of a tile that state and what is alive between two ops take at least. */
function leastOf(graph: Graph, target: TileTarget): number {
  const { always, alive } = leastBytes(graph);
  return (always + alive) / target.constants.tiles;
}

function fitRegions(trials: Trials, { target, graphAt, planAt, temporary }: PartsSearch): void {
  const { trial, planned } = trials.smallest!;
  const { batch, recompute, regions = [] } = trial;
  // State and code are there whatever is in parts.
  if (planned.plan.memory.always + codeKept * planned.plan.memory.code > usableBytes(target)) return;
  const setting: Setting = { batch, recompute, temporary: trial.temporary };
  const graph = withRegions(graphAt(recompute), regions)!;
  if (graph.ops.length * fewestRegions > mostRegionOps) return;
  const found = narrowed({ graph, planned, regions }, { planAt: (g) => planAt(g, setting), enough: (n) => n.planned.fits, rounds, ops: mostRegionOps });
  if (found.graph !== graph) narrowing(trials, { batch, recompute, regions: found.regions! }, temporary.filter((share) => share <= setting.temporary));
}

/** The graph of a setting, made of the one of its level. */
export const partsOf = (graph: Graph, { regions }: Pick<Setting, 'regions'>): Graph => (regions ? withRegions(graph, regions)! : graph);

/** The plan of a graph in parts, with what it was made of. */
export function namingParts(plan: TilePlan, whole: Graph, regions: readonly RegionInParts[] | undefined): TilePlan {
  if (!regions) return plan;
  const parts = regions.map((r) => `${r.parts}${r.again === 'none' ? '' : `, ${r.again === 'light' ? 'light ops' : 'all'} again after sums`}`).join('; ');
  return { ...plan, inParts: { of: digest(whole), regions }, notes: [...plan.notes, `${regionsInParts(regions)}, in ${parts}: their parts follow each other`] };
}

/** `2 regions in parts`. */
export const regionsInParts = (regions: readonly RegionInParts[]): string => `${regions.length} ${regions.length === 1 ? 'region' : 'regions'} in parts`;
