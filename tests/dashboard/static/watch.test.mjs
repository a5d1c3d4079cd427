// What the board asks for now and then, against an API that gives a page at a time.
import assert from "node:assert/strict";
import { test } from "node:test";
import { JobWatch } from "../../../dashboard/static/live_chart/watch.js";

const STEPS = Array.from({ length: 150 }, (_, at) => 150 - at); // newest first, as the API lists them

globalThis.document = { hidden: false };
globalThis.fetch = async (address) => {
  const { pathname, searchParams: query } = new URL(address);
  assert.equal(query.get("ticket"), "t");
  if (pathname === "/job") return Response.json({ state: "running" });
  const limit = Number(query.get("limit") ?? 20);
  const first = query.has("after") ? STEPS.indexOf(Number(query.get("after"))) + 1 : 0;
  const steps = STEPS.slice(first, first + limit);
  return Response.json({
    data: steps.map((step) => ({ step_number: step })), has_more: first + limit < STEPS.length, last_id: String(steps.at(-1)),
  });
};

test("every checkpoint is marked, however many pages they fill", async () => {
  const marked = [];
  const on = { job: () => {}, checkpoints: (steps) => marked.push(...steps), silence: assert.fail, refusal: assert.fail };
  const watch = new JobWatch({ url: "http://host/job", ticket: "t", active: true }, on);

  await watch.look();
  watch.close();

  assert.deepEqual(marked, STEPS.toReversed());
});
