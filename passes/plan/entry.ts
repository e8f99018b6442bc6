/** One graph of a program: its inputs and state, its steps, its outputs. */
import { invariant } from '../../ir/diagnostic.ts';
import type { Graph, Value } from '../../ir/graph.ts';
import type { Entry, Step } from '../../ir/tile.ts';
import { sameType, showType } from '../../ir/type.ts';
import { isDense, rowMajorOrder } from '../layout.ts';
import { newValues } from '../order-updates.ts';
import { noteGraph } from './concat.ts';
import { assign, copyInto } from './copies.ts';
import type { Planning } from './planning.ts';
import { planRegion } from './steps.ts';

/** Plans one graph after those before it, so that their temporaries never live at once. */
export function planEntry(p: Planning, name: string, graph: Graph): Entry & { readonly graph: Graph } {
  p.graph = graph;
  // The host has read what earlier graphs gave before this one starts.
  p.outputs.clear();
  noteGraph(p, graph);
  for (const v of graph.inputs) {
    const key = `${v.name} ${showType(v.type)}`;
    // Where inputs share memory with temporaries, what one entry leaves in it is not what another was given.
    const known = p.sharedIo ? undefined : p.inputs.get(key);
    const spot = known ?? p.newSpot('input', v.type, rowMajorOrder(v.type.shape.length));
    p.spots.set(v, spot);
    p.inputs.set(key, spot);
  }
  const updated = new Set(graph.updates.map((u) => u.state));
  p.updates = new Map([...newValues(graph)].map(([value, states]) => [value, states.at(-1)!]));
  for (const s of graph.state) {
    if (!updated.has(s.value) && !p.readers.has(s.value) && !p.outputs.has(s.value)) continue;
    const known = p.state.get(s.name);
    if (updated.has(s.value) && known) {
      invariant(sameType(known.type, s.value.type), `plan: state ${s.name} has two types`);
      p.spots.set(s.value, known.spot);
      continue;
    }
    const spot = p.newSpot(updated.has(s.value) ? 'state' : 'constant', s.value.type, rowMajorOrder(s.value.type.shape.length));
    p.spots.set(s.value, spot);
    if (updated.has(s.value)) p.state.set(s.name, { type: s.value.type, spot });
    p.content(s.value, s.name, s.init);
  }
  const steps = planRegion(p, graph, true);
  const outputs = graph.outputs.map((o) => ({ name: o.name, value: planOutput(p, o.value, steps) }));
  assign(p, graph.updates.map((u) => u.value), graph.updates.map((u) => u.state), steps);
  // The host reads outputs when all steps have run.
  for (const o of outputs) p.touch(o.value);
  p.position++;
  return { name, steps, graph: { ...graph, outputs } };
}

/** A value of an output buffer: the value itself if it was computed there, else a copy. */
export function planOutput(p: Planning, v: Value, steps: Step[]): Value {
  const spot = p.spot(v);
  if (spot.root.kind === 'output' && !p.claimed.has(spot.root) && spot.offset === 0 && isDense(v.type.shape, spot.strides, rowMajorOrder(v.type.shape.length))) {
    p.claimed.add(spot.root);
    return v;
  }
  const made: Value = { type: v.type, name: v.name };
  p.spots.set(made, p.newSpot('output', v.type, rowMajorOrder(v.type.shape.length)));
  p.claimed.add(p.spot(made).root);
  copyInto(p, v, made, steps);
  return made;
}
