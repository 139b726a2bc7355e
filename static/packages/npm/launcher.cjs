#!/usr/bin/env node
// Starts the program of this machine, which is a package of its own: npm installs the one whose os and cpu are right.
"use strict";

const { spawn } = require("node:child_process");
const { constants } = require("node:os");

const name = `anthropic-proxy-${process.platform}-${process.arch}`;

/** Ends with the condition, and what to do. */
function fail(text) {
  console.error(`anthropic-proxy: ${text}`);
  process.exit(1);
}

let program;
try {
  program = require.resolve(`${name}/bin/anthropic-proxy`);
} catch {
  fail(
    `the package ${name} is not installed: there is no program for this system, or optional dependencies were ` +
      `left out; install without --omit=optional, or build from source (cargo install)`,
  );
}

const child = spawn(program, process.argv.slice(2), { stdio: "inherit" });
// the terminal sends these to both; a supervisor sends them to this process alone
const signals = ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR2"];
for (const signal of signals) process.on(signal, () => child.kill(signal));
child.on("error", (error) => fail(`${program} cannot be started: ${error.message}`));
child.on("exit", (code, signal) => {
  process.exitCode = code ?? 128 + (constants.signals[signal] ?? 0);
});
