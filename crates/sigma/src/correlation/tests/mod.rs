mod cases;
mod counterexamples;
mod definitions;
mod law;
mod simulation;
