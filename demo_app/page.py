"""The page: one template, filled with the state that the server knows when it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from string import Template

_TEMPLATE = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$greeting: generation $generation</title>
<link rel="icon" href="data:,">
<style>
  body { margin: 0 auto; max-width: 60rem; padding: 3rem 1.5rem; color: #222; background: #fafafa;
         font: 1rem/1.5 system-ui, sans-serif; }
  h1 { margin: 0; font-size: 3.5rem; line-height: 1.1; color: $colour; }
  main { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr));
         margin: 2rem 0; }
  section { padding: 1rem 1.25rem; background: #fff; border-radius: .5rem;
            border-top: .35rem solid var(--colour, #bbb); box-shadow: 0 1px 4px #0002; }
  h2 { margin: 0; font-size: 1rem; font-weight: 600; }
  .number { font-size: 3rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
  .small { margin: 0; color: #666; font-size: .875rem; overflow-wrap: anywhere; }
  button { margin-top: .75rem; padding: .35rem .75rem; font: inherit; cursor: pointer; }
  code { background: #eee; padding: .1rem .3rem; border-radius: .25rem; }
</style>
</head>
<body data-base="$base">
<h1>$greeting</h1>
<p>Version $version, served by generation $generation. Edit <code>demo_app/greeting.py</code>
and save it: new requests get the new code at once, the open stream keeps the old.</p>
<main>
  <section id="page" style="--colour: $colour">
    <h2>This page</h2>
    <div class="number">$generation</div>
    <p class="small">$greeting, version $version</p>
    <p class="small">release $release</p>
    <button>Load it again</button>
  </section>
  <section id="new">
    <h2>New requests</h2>
    <div class="number">…</div>
    <p class="small">asking every second</p>
  </section>
  <section id="stream">
    <h2>The open stream</h2>
    <div class="number">…</div>
    <p class="small">opening</p>
    <button>Open it again</button>
  </section>
  <section id="slow">
    <h2>A slow request</h2>
    <div class="number">…</div>
    <p class="small">takes ten seconds</p>
    <button>Start one</button>
  </section>
</main>
<script>
"use strict";
const base = document.body.dataset.base;

function show(id, state, words) {
  const card = document.getElementById(id);
  if (state) {
    card.style.setProperty("--colour", state.colour);
    card.querySelector(".number").textContent = state.generation;
  }
  card.querySelector(".small").textContent = words;
}

async function poll() {
  try {
    const state = await (await fetch(base + "/state")).json();
    show("new", state, state.greeting + ", version " + state.version);
  } catch (error) {
    show("new", null, "no answer: " + error.message);
  }
  setTimeout(poll, 1000);
}

let events = null;
function open() {
  if (events) events.close();
  show("stream", null, "opening");
  events = new EventSource(base + "/stream");
  events.addEventListener("tick", event => {
    const state = JSON.parse(event.data);
    show("stream", state, state.greeting + ", " + state.events + " events since it was opened");
  });
  events.onerror = () => show("stream", null, "closed; the browser opens it again");
}

async function slow() {
  const button = document.querySelector("#slow button");
  button.disabled = true;
  show("slow", null, "under way");
  try {
    const state = await (await fetch(base + "/slow?seconds=10")).json();
    show("slow", state, state.farewell + ", version " + state.version);
  } catch (error) {
    show("slow", null, "failed: " + error.message);
  }
  button.disabled = false;
}

document.querySelector("#page button").onclick = () => location.reload();
document.querySelector("#stream button").onclick = open;
document.querySelector("#slow button").onclick = slow;
poll();
open();
</script>
</body>
</html>
""")


def render(state: Mapping[str, object], base: str) -> str:
    """Return the page as HTML.

    :param state: what it shows; escaped here.
    :param base: the path at which the application is mounted, empty at the root.
    """
    values = {name: escape(str(value)) for name, value in state.items()}
    return _TEMPLATE.substitute(values, base=escape(base))
