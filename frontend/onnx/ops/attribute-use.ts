/** Notices attributes that a lowering never looks at, so that none is ignored in silence. */
import type { Attributes, LowerContext } from '../lowering.ts';

/** Attributes that speak of another mode of their op (training, a rank, a dtype), or that are hints: they change nothing where they are not read. */
const idle: ReadonlySet<string> = new Set([
  'consumed_inputs', 'chunk_size', 'seed', 'momentum', 'is_test', 'saturate', 'round_mode', 'stash_type', 'training_mode',
  'q_num_heads', 'kv_num_heads', 'num_heads', 'output_sequence', 'activation_alpha', 'activation_beta', 'keepdims', 'dtype', 'type', 'epsilon', 'ratio', 'noop_with_empty_axes',
]);

/** The same context, watching which attributes are read; `check` refuses the node if one was not. */
export function watchAttributes(cx: LowerContext): { readonly cx: LowerContext; check(): void } {
  const { attrs } = cx.node;
  if (attrs.names.length === 0) return { cx, check: () => undefined };
  const read = new Set<string>();
  // The readers are overloaded; whatever follows the name is passed on as it came.
  const noted = <F extends (name: string, ...rest: never[]) => unknown>(f: F): F => {
    const call = f as unknown as (name: string, ...rest: unknown[]) => unknown;
    const reader = (name: string, ...rest: unknown[]): unknown => {
      read.add(name);
      return call(name, ...rest);
    };
    return reader as unknown as F;
  };
  const watched: Attributes = {
    names: attrs.names,
    has: noted(attrs.has), int: noted(attrs.int), float: noted(attrs.float), string: noted(attrs.string), ints: noted(attrs.ints), floats: noted(attrs.floats),
    strings: noted(attrs.strings), tensor: noted(attrs.tensor), stringTensor: noted(attrs.stringTensor), graph: noted(attrs.graph),
    tensorDType: noted(attrs.tensorDType), dtype: noted(attrs.dtype), type: noted(attrs.type),
  };
  return {
    cx: { ...cx, node: { ...cx.node, attrs: watched } },
    check() {
      const unread = attrs.names.find((name) => !read.has(name) && !idle.has(name));
      if (unread !== undefined) cx.unsupported(`${cx.node.opType} attribute ${unread}`, 'it is not known to this op in this opset, or has no meaning for these inputs');
    },
  };
}
