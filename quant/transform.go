package quant

// Calibration is what `terse calibrate` learned of a model: the means of K
// (after RoPE) and of V per layer, KV head and channel.
type Calibration struct {
	Layers, KVHeads, HeadDim int
	KMean, VMean             []float32 // [Layers][KVHeads][HeadDim]
	Hash                     [32]byte  // of the file; part of the handshake
}

// Transform takes K, V and queries into the cache's basis and outputs back.
type Transform struct {
	g   *Geometry
	cal *Calibration
}

// NewTransform makes g's basis; cal is nil where the model has no calibration.
func NewTransform(g *Geometry, cal *Calibration) (*Transform, error) {
	return &Transform{g: g, cal: cal}, nil
}

// Keys takes rows of K ([rows][KVHeads][HeadDim], after RoPE) into the basis.
func (t *Transform) Keys(layer int, k []float32) {}

// Values takes rows of V ([rows][KVHeads][HeadDim]) into the basis.
func (t *Transform) Values(layer int, v []float32) {}

// Queries takes rows of Q ([rows][heads][HeadDim], after RoPE) into K's basis.
func (t *Transform) Queries(layer int, q []float32) {}

// Outputs takes attention outputs ([rows][heads][HeadDim]) back out of V's basis.
func (t *Transform) Outputs(layer int, o []float32) {}
