/** The stages of a GPU's report, one after the other: what one of them throws costs that stage alone. */

/** A stage that did not come to its end. */
export interface Failure {
  readonly stage: string;
  readonly error: string;
}

export interface Stage {
  readonly name: string;
  run(): Promise<void>;
}

/** Runs stages in turn. `done` is called after each with the stages that failed so far and the names of those to come. */
export async function runStages(stages: readonly Stage[], done: (failures: readonly Failure[], pending: readonly string[]) => void): Promise<void> {
  const failures: Failure[] = [];
  for (const [i, { name, run }] of stages.entries()) {
    try {
      await run();
    } catch (e) {
      failures.push({ stage: name, error: e instanceof Error ? e.message : String(e) });
    }
    done([...failures], stages.slice(i + 1).map((s) => s.name));
  }
}
