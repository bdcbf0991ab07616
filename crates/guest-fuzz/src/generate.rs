//! Generators: which instruction comes next. All of them depend on a region map and a seed, and on nothing else.
