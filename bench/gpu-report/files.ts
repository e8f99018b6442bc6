/** The files of a GPU's report. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { markdown, type Report } from './table.ts';

/** Writes a report, as Markdown and as JSON, to the files that are named; folders are made. */
export function saveReport(report: Report, { output, json }: { readonly output: string | undefined; readonly json: string | undefined }): void {
  for (const [file, content] of [[output, `${markdown(report)}\n`], [json, `${JSON.stringify(report, null, 1)}\n`]] as const) {
    if (file === undefined) continue;
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, content);
  }
}
