//go:build (amd64 || arm64) && !purego

package codes

// stride is the bytes to go ahead for each of a kernel's steps.
func (a *Ahead) stride(p *Planes, stepBytes int) int {
	return min((a.Len*stepBytes+p.Rows*p.Width/4-1)/(p.Rows*p.Width/4), 128)
}
