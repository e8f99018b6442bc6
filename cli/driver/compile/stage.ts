/** Stages of a compilation after the passes. */
import { UserError } from '../../../ir/diagnostic.ts';
import type { Graph } from '../../../ir/graph.ts';
import { PassError } from '../../../passes/pipeline.ts';

/** Runs a stage after the passes; what it throws, unless it is the user's to mend, carries the graph for the report. */
export function inStage<T>(stage: string, graph: Graph, run: () => T): T {
  try {
    return run();
  } catch (e) {
    throw e instanceof UserError ? e : new PassError(stage, graph, e);
  }
}
