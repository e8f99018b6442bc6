import type { Attr, Graph, Op, Value } from '../ir/graph.ts';
import { rewriteOps } from '../ir/rewrite.ts';
import { elements } from '../ir/text.ts';
import type { Target } from '../ir/tile.ts';
import { showType, type Tensor } from '../ir/type.ts';

/** Constants of up to this many elements are compared by value; larger ones by identity. */
const comparedElements = 64;

/**
 * Computes equal things once: a later op of the same name, operands and attributes is replaced by the earlier one. Random ops are keyed by their stream,
 * so equal ones are equal too. Ops with regions are left alone; inside regions the same happens. Returns the same graph where nothing is repeated.
 */
export function eliminateCommonSubexpressions(graph: Graph, target: Target): Graph {
  const ids = new Map<object, number>();
  const id = (x: object): number => ids.get(x) ?? (ids.set(x, ids.size), ids.size - 1);
  const attr = (a: Attr): string => (typeof a === 'object' && 'data' in a ? tensorKey(a, id) : typeof a === 'bigint' ? `${a}n` : JSON.stringify(a, (_, v: unknown) => (typeof v === 'number' ? (Object.is(v, -0) ? '-0' : String(v)) : v)));
  const seen = new Map<string, readonly Value[]>();
  return rewriteOps(graph, (op: Op) => {
    if (op.regions.length > 0) return undefined;
    const key = `${op.name}(${op.operands.map(id).join(',')})${Object.keys(op.attrs).map((k) => `${k}=${attr(op.attrs[k]!)}`).join(';')}`;
    const before = seen.get(key);
    if (before) return before;
    seen.set(key, op.results);
    return undefined;
  }, { regions: (region) => eliminateCommonSubexpressions(region, target) });
}

const tensorKey = (t: Tensor, id: (x: object) => number): string => `${showType(t)}${t.data.length <= comparedElements ? `(${elements(t)})` : `@${id(t.data)}`}`;
