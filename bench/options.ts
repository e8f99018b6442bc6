/** Command lines of measuring scripts: one list of options gives the values, the usage and the refusals. */
import { parseArgs, type ParseArgsOptionDescriptor } from 'node:util';
import { UserError } from '../ir/diagnostic.ts';
import { InputError } from '../runtime/error.ts';

/** An option without a default; `value` says in capitals what it takes. */
interface Text { readonly value: string }
/** An option that takes one of some words, the first unless another is given. */
interface OneOf<T extends string> { readonly choices: readonly T[] }
/** An option by its default: a whole number (at least 1, or 0 where that is the default), a list of such, a text, a flag (`true`: on unless --no-NAME is given). */
type Option = number | readonly number[] | string | boolean | Text | OneOf<string>;
type Given<O> = O extends number ? number : O extends readonly number[] ? readonly number[] : O extends string ? string : O extends boolean ? boolean : O extends OneOf<infer T> ? T : string | undefined;

/** An option without a default, for `commandLine`. */
export const text = (value: string): Text => ({ value });
/** An option that takes one of these words, for `commandLine`; the first is the default. */
export const oneOf = <const T extends string>(...choices: readonly T[]): OneOf<T> => ({ choices });

/**
 * Options and operands of this process. `operands` is how the usage names them: FOLDER has to be there, [FOLDER] may be, and FOLDER... stands for one or more. `--help` prints
 * the usage; a mistake ends the process with a line and exit code 2, here and where the script meets a user's mistake (UserError, InputError) later. `-o` is short for `--output`.
 */
export function commandLine<T extends Readonly<Record<string, Option>>>(command: string, operands: string, options: T): { readonly options: { readonly [K in keyof T]: Given<T[K]> }; readonly operands: readonly string[]; readonly usage: string } {
  const usage = [`usage: ${command}${command.startsWith('npm') ? ' --' : ''}`, ...(operands === '' ? [] : [operands]), ...Object.entries(options).map(([name, o]) => `[${shown(name, o)}]`)].join(' ');
  const known: Record<string, ParseArgsOptionDescriptor> = { help: { type: 'boolean' } };
  for (const [name, o] of Object.entries(options)) known[o === true ? `no-${name}` : name] = { type: typeof o === 'boolean' ? 'boolean' : 'string', ...(name === 'output' && { short: 'o' }) };
  process.on('uncaughtException', (e) => {
    if (e instanceof UserError || e instanceof InputError) stop(e.message);
    console.error(e);
    process.exit(1);
  });
  let parsed;
  try {
    parsed = parseArgs({ options: known, allowPositionals: true });
  } catch (e) {
    stop(`${(e as Error).message.split('. ')[0]!}; ${usage}`);
  }
  const { values, positionals } = parsed;
  if (values['help'] === true) {
    console.log(usage);
    process.exit(0);
  }
  const wanted = operands.split(' ').filter((o) => o !== '');
  const [least, most] = [wanted.filter((o) => !o.startsWith('[')).length, operands.includes('...') ? Infinity : wanted.length];
  if (positionals.length < least || positionals.length > most) stop(positionals.length < least ? usage : `${positionals[most]} is one too many; ${usage}`);
  const given = Object.entries(options).map(([name, o]) => [name, o === true ? values[`no-${name}`] !== true : valueOf(name, o, values[name], usage)]);
  return { options: Object.fromEntries(given) as { [K in keyof T]: Given<T[K]> }, operands: positionals, usage };
}

/** Ends the process: a user's mistake. */
export function stop(message: string): never {
  console.error(message);
  process.exit(2);
}

function valueOf(name: string, option: Option, given: unknown, usage: string): Given<Option> {
  if (typeof option === 'object' && 'value' in option) return given as string | undefined;
  if (typeof option === 'object' && 'choices' in option) {
    const word = (given ?? option.choices[0]) as string;
    return option.choices.includes(word) ? word : stop(`--${name} takes one of ${option.choices.join(', ')}, not ${word}; ${usage}`);
  }
  if (given === undefined || typeof option === 'boolean' || typeof option === 'string') return (given ?? option) as Given<Option>;
  const least = option === 0 ? 0 : 1;
  const numbers = (given as string).split(',').map(Number);
  if (!numbers.every((n) => Number.isInteger(n) && n >= least) || given === '' || (typeof option === 'number' && numbers.length !== 1)) stop(`--${name} takes ${typeof option === 'number' ? 'a whole number' : 'whole numbers'} from ${least}, not ${String(given)}; ${usage}`);
  return typeof option === 'number' ? numbers[0]! : numbers;
}

/** An option as the usage shows it. */
function shown(name: string, option: Option): string {
  if (typeof option === 'boolean') return `--${option ? 'no-' : ''}${name}`;
  if (typeof option === 'number') return `--${name} ${option}`;
  if (typeof option === 'string') return option === '' ? `--${name} TEXT` : `--${name} ${option}`;
  return `--${name} ${'value' in option ? option.value : 'choices' in option ? option.choices.join('|') : option.join()}`;
}
