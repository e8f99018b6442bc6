/** Order of nodes: checks that every name is defined once, and sorts graphs that are out of order. */
import { UserError } from '../../ir/diagnostic.ts';
import { showNode, type GraphView, type NodeView } from './model.ts';

/**
 * The nodes in an order in which every name is defined before it is used: as they stand where that holds (ONNX demands it), else sorted.
 * `isKnown` tells whether a name is defined outside these nodes. Throws UserError for a name that is defined twice or never, and for a cycle.
 */
export function orderNodes(nodes: readonly NodeView[], isKnown: (name: string) => boolean, definedBefore: ReadonlySet<string>, where: string): readonly NodeView[] {
  const producer = new Map<string, NodeView>();
  for (const node of nodes) {
    for (const name of node.outputs) {
      if (name === '') continue;
      const other = producer.get(name);
      if (other) throw new UserError(`${where}: "${name}" is defined twice, by ${showNode(other)} and by ${showNode(node)}${other === node ? ' again' : ''}; names must be unique`);
      if (definedBefore.has(name)) throw new UserError(`${where}: ${showNode(node)} defines "${name}", which is already the name of an input or initializer; names must be unique`);
      producer.set(name, node);
    }
  }

  const done = new Set<NodeView>();
  const waiting = new Map<NodeView, NodeView[]>();
  const missing = new Map<NodeView, number>();
  const order: NodeView[] = [];
  const finish = (first: NodeView): void => {
    const ready = [first];
    while (ready.length > 0) {
      const node = ready.shift()!;
      done.add(node);
      order.push(node);
      for (const user of waiting.get(node) ?? []) {
        const left = missing.get(user)! - 1;
        missing.set(user, left);
        if (left === 0) ready.push(user);
      }
    }
  };
  for (const node of nodes) {
    const needs = new Set<NodeView>();
    for (const name of namesUsed(node)) {
      const from = producer.get(name);
      if (from && !done.has(from)) needs.add(from);
      else if (!from && !isKnown(name) && node.inputs.includes(name)) throw new UserError(`${where}: ${showNode(node)} reads "${name}", which no input, initializer or node defines`);
    }
    missing.set(node, needs.size);
    if (needs.size === 0) finish(node);
    for (const from of needs) {
      const users = waiting.get(from);
      if (users) users.push(node);
      else waiting.set(from, [node]);
    }
  }
  if (order.length === nodes.length) return order;
  throw new UserError(`${where}: the graph has a cycle: ${showCycle(nodes.filter((n) => !done.has(n)), producer)}`);
}

/** Names that a node reads, those that its subgraphs capture included. */
function namesUsed(node: NodeView): Set<string> {
  const used = new Set(node.inputs.filter((n) => n !== ''));
  for (const { graph } of node.attributes.values()) if (graph) for (const name of captures(graph)) used.add(name);
  return used;
}

function captures(graph: GraphView): Set<string> {
  const own = new Set([...graph.inputNames, ...graph.initializers.map((t) => t.name), ...graph.nodes.flatMap((n) => n.outputs)]);
  const used = new Set(graph.outputNames);
  for (const node of graph.nodes) for (const name of namesUsed(node)) used.add(name);
  return used.difference(own);
}

/** `Add node "a" -> Relu node "r" -> Add node "a"`, of nodes that all wait for another of them. */
function showCycle(stuck: readonly NodeView[], producer: ReadonlyMap<string, NodeView>): string {
  const set = new Set(stuck);
  const path: NodeView[] = [];
  let node = stuck[0]!;
  while (!path.includes(node)) {
    path.push(node);
    node = [...namesUsed(node)].map((n) => producer.get(n)).find((p) => p !== undefined && set.has(p))!;
  }
  return [node, ...path.slice(path.indexOf(node)).reverse()].map(showNode).join(' -> ');
}
