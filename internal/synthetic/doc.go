// Package synthetic writes GGUF files of random weights in the shape of known
// models, with a made-up vocabulary: what benchmarks of speed and memory need,
// where no real weights can be shipped. Any engine that reads GGUF opens them.
//
// Values are Gaussian with a deviation of 1/sqrt(inputs), so that activations keep
// their size through the layers and attention is neither flat nor a single peak.
// They are drawn from a pool of a million that is coded once and repeated at
// random offsets: coding a billion values would take minutes and time the same.
package synthetic
