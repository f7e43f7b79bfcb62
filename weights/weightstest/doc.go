// Package weightstest writes model files for tests: GGUF and safetensors from
// tensors, in any of the element types that package weights reads. It knows the
// formats on its own and not from the readers, so that the two check each other.
// And it opens the built-in model.
package weightstest
