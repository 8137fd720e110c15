// Unpacks the Chromium that npm has brought and writes down how its package starts it; conftest.py reads that.

import { readFileSync, rmSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const place = fileURLToPath(new URL("node_modules/.chromium", import.meta.url));
// What an interrupted run has left would be taken for whole.
rmSync(place, { recursive: true, force: true });
mkdirSync(place);

// The package unpacks to the directory of temporary files, and the libraries that an operating system may lack,
// with the variables that make them found, only where it believes itself in a bare container of this name.
const variables = ["LD_LIBRARY_PATH", "FONTCONFIG_PATH"];
variables.forEach((name) => delete process.env[name]);
process.env.TMPDIR = place;
process.env.AWS_EXECUTION_ENV = "AWS_Lambda_nodejs22.x";
const { default: chromium } = await import("@sparticuz/chromium");
const executable_path = await chromium.executablePath();

// Its fonts are the same on every machine. Their configuration has the directory of temporary files to the letter.
const fonts = join(process.env.FONTCONFIG_PATH, "fonts.conf");
writeFileSync(fonts, readFileSync(fonts, "utf8").replaceAll("/tmp/", `${place}/`));

// One process for all ends with the first page that is closed; and a page must be good in a browser that is not lax.
const without = ["--single-process", "--disable-web-security", "--allow-running-insecure-content"];
const args = chromium.args.filter((flag) => !without.includes(flag));

const env = Object.fromEntries(variables.map((name) => [name, process.env[name]]));
writeFileSync(join(place, "launch.json"), JSON.stringify({ executable_path, args, env }, null, 1));
