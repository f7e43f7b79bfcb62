// Package session runs a model over one text with pages of its own: no
// scheduler, no sharing, no reuse. Calibration, evaluation and tests use it;
// serving goes through package engine.
package session
