/** How the host hears of the end of a run: by a cell that it waits on, or by a message where the engine cannot do that. */
import { afterEach, describe, expect, it, vi } from 'vitest';
import { load } from '../runtime/index.ts';
import { poison, tinyArtifact, tinyInput, tinyResult } from './tiny-artifact.ts';

const own = Object.getOwnPropertyDescriptor(Atomics, 'waitAsync')!;
afterEach(() => {
  vi.restoreAllMocks();
  Object.defineProperty(Atomics, 'waitAsync', own);
});

describe.each([['a cell', true], ['a message', false]] as const)('a run that ends by %s', (_, cell) => {
  const prepare = (): { calls(): number } => {
    const real = Atomics.waitAsync;
    if (cell) {
      const spy = vi.spyOn(Atomics, 'waitAsync').mockImplementation(real);
      return { calls: () => spy.mock.calls.length };
    }
    Reflect.deleteProperty(Atomics, 'waitAsync');
    return { calls: () => (typeof Atomics.waitAsync === 'function' ? NaN : 0) };
  };

  it.each([1, 3])('gives its result, at once and after the workers have gone to sleep (%i threads)', async (threads) => {
    const waits = prepare();
    await using session = await load(tinyArtifact(), { threads });
    for (let seed = 0; seed < 20; seed++) {
      if (seed % 5 === 4) await new Promise((resolve) => setTimeout(resolve, 5));
      expect((await session.run({ x: tinyInput(seed) }))['y']!.data).toEqual(tinyResult(tinyInput(seed)));
    }
    expect(waits.calls()).toBe(cell ? 20 : 0);
  });

  it('is refused with the cause where a thread traps', async () => {
    prepare();
    const session = await load(tinyArtifact(), { threads: 2 });
    const x = tinyInput();
    x[700] = poison;
    await expect(session.run({ x })).rejects.toThrow('step 0');
    await session.close();
  });
});
