package device

import (
	"errors"
	"fmt"

	"github.com/terse-llm/terse/kernels/cuda"
	"github.com/terse-llm/terse/model"
	"github.com/terse-llm/terse/quant"
)

// Options say which GPU to open. The zero value is the first one, with the
// system's libraries.
type Options struct {
	Ordinal   int
	Driver    []string // libraries to use instead of NVIDIA's driver: the first that there is
	Libraries []string // folders to look for cuBLASLt in first
}

// GPU is an open GPU with the kernels on it.
type GPU struct {
	options Options
	driver  *cuda.Driver
	dev     *cuda.Device
	module  cuda.Module
	blas    int // version of cuBLASLt
}

// Open opens a GPU. It fails, saying what to do, where there is no driver, no such
// GPU or no cuBLASLt.
func Open(o Options) (*GPU, error) {
	driver, err := cuda.Load(o.Driver...)
	if err != nil {
		return nil, err
	}
	dev, err := driver.Open(o.Ordinal)
	if err != nil {
		return nil, err
	}
	g := &GPU{options: o, driver: driver, dev: dev}
	err = dev.Do(func(c *cuda.Context) error {
		if g.blas, err = c.OpenBLAS(o.Libraries...); err != nil {
			return err
		}
		g.module, err = c.LoadKernels()
		return err
	})
	if err != nil {
		return nil, errors.Join(err, dev.Close())
	}
	return g, nil
}

// Close gives the GPU back; its models and runners must be closed.
func (g *GPU) Close() error {
	err := g.dev.Do(func(c *cuda.Context) error { return c.CloseModule(g.module) })
	return errors.Join(err, g.dev.Close())
}

// Info is what the GPU is.
func (g *GPU) Info() cuda.Info { return g.dev.Info }

// Versions says which driver and cuBLASLt are used.
func (g *GPU) Versions() string {
	return fmt.Sprintf("CUDA %s, cuBLASLt %d", g.driver.Version(), g.blas)
}

// FreeMemory is how many bytes of the GPU's memory nobody has taken.
func (g *GPU) FreeMemory() (free int64, err error) {
	err = g.dev.Do(func(c *cuda.Context) error {
		free, _, err = c.FreeMemory()
		return err
	})
	return free, err
}

// Supports says why there are no kernels for a model with pages of a geometry.
func (g *GPU) Supports(c *model.Config, geometry *quant.Geometry, cal *quant.Calibration) error {
	tf, err := quant.NewTransform(geometry, cal)
	if err != nil {
		return err
	}
	return g.dev.Do(func(ctx *cuda.Context) error {
		k, err := newKernels(ctx, g.module, c, geometry, tf, cuda.F16)
		if err != nil {
			return err
		}
		return k.close(ctx)
	})
}

// Fits says why the GPU cannot run a model with pages of a geometry: for want of
// a kernel, or of memory for the weights, kv bytes of pages and steps of so many rows.
func (g *GPU) Fits(c *model.Config, geometry *quant.Geometry, cal *quant.Calibration, kv int64, rows int) error {
	if err := g.Supports(c, geometry, cal); err != nil {
		return err
	}
	free, err := g.FreeMemory()
	if err != nil {
		return err
	}
	if rest := beside + activationBytes(c, rows); weightBytes(c)+kv+rest > free {
		return fmt.Errorf("%w: the weights take %d MiB, the KV cache %d, the rest %d, and %d are free; give the cache less (--kv-memory), take fewer tokens a step (--chunk) or use --device cpu",
			cuda.ErrNoMemory, weightBytes(c)>>20, kv>>20, rest>>20, free>>20)
	}
	return nil
}

// beside is what is left of a GPU's memory to workspaces and what the driver takes.
const beside = 1 << 30

// KVRoom is how much of free bytes of a GPU a KV cache may take by default, beside
// steps of so many rows: of what c's weights leave, so much that a second one beside
// it still fits.
func KVRoom(c *model.Config, free int64, rows int) int64 {
	return max(0, free-weightBytes(c)-2*(beside+activationBytes(c, rows))) * 2 / 5
}

// weightBytes is what a model's matrices take in 16 bits.
func weightBytes(c *model.Config) int64 {
	q, kv := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	layer := (q+2*kv)*c.Hidden + c.Hidden*q + 3*c.Hidden*c.Intermediate
	embeddings := 2
	if c.Tied {
		embeddings = 1
	}
	return 2 * (int64(layer)*int64(c.Layers) + int64(embeddings)*int64(c.VocabSize)*int64(c.Hidden))
}

// kernelSet is what runs a model on one context.
type kernelSet struct {
	layer  *cuda.Layer
	few    *cuda.Few
	drawer *cuda.Drawer
	turner *cuda.Turner
	// Of the hq formats and f16:
	encoder *cuda.Encoder
	decoder *cuda.Decoder
	prefill *cuda.Prefiller
	// Of the hack layouts:
	hack *cuda.Hack
}

// newKernels finds the kernels for a model and a geometry.
func newKernels(c *cuda.Context, m cuda.Module, cfg *model.Config, g *quant.Geometry, tf *quant.Transform, products cuda.DType) (k kernelSet, err error) {
	group := cfg.Heads / cfg.KVHeads
	if f := g.Format.Family; f == quant.FamilyHack || f == quant.FamilyHackV2 {
		k.hack, err = c.NewHack(m, g, group)
	} else {
		err = k.attention(c, m, g, tf, group)
	}
	if err != nil {
		return k, err
	}
	if k.turner, err = c.NewTurner(m, g, tf, cfg.Heads, products); err != nil {
		return k, errors.Join(err, k.close(c))
	}
	if k.few, err = c.NewFew(m, products, g.HeadDim); err != nil {
		return k, err
	}
	if k.drawer, err = c.NewDrawer(m); err != nil {
		return k, err
	}
	k.layer, err = c.NewLayer(m, products)
	return k, err
}

// attention finds the kernels of the hq formats and f16.
func (k *kernelSet) attention(c *cuda.Context, m cuda.Module, g *quant.Geometry, tf *quant.Transform, group int) (err error) {
	if k.decoder, err = c.NewDecoder(m, g, group); err != nil {
		return err
	}
	if k.prefill, err = c.NewPrefiller(m, g, group); err != nil {
		return err
	}
	k.encoder, err = c.NewEncoder(m, g, tf)
	return err
}

func (k *kernelSet) close(c *cuda.Context) error {
	var errs []error
	if k.encoder != nil {
		errs = append(errs, c.CloseEncoder(k.encoder))
	}
	if k.turner != nil {
		errs = append(errs, c.CloseTurner(k.turner))
	}
	return errors.Join(errs...)
}
