mod backfill;
mod cases;
mod counterexamples;
mod definitions;
mod law;
mod scale;
mod simulation;
mod snapshots;
