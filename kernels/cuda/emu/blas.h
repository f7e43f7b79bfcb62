// The products of cuBLASLt that package cuda asks for, in plain loops: yᵀ = Wᵀᵀ·xᵀ
// of column-major matrices, float16 or bfloat16 in, float32 or the same out.
#pragma once
struct Layout {
  int type;
  u64 rows, cols;
  i64 ld;
};

DEV float element(const void* p, u64 i, int type) {
  if (type == 0) return ((const float*)p)[i];
  u16 h = ((const u16*)p)[i];
  return type == 14 ? asFloat((u32)h << 16) : widen(h);
}

API cublasLtCreate(void** h) {
  *h = (void*)5;
  return 0;
}
API cublasLtDestroy(void*) { return 0; }
extern "C" __attribute__((visibility("default"))) size_t cublasLtGetVersion() { return 130000; }
API cublasLtMatmulDescCreate(void** d, int, int) {
  *d = (void*)6;
  return 0;
}
API cublasLtMatmulDescDestroy(void*) { return 0; }
API cublasLtMatmulDescSetAttribute(void*, int, const void*, size_t) { return 0; }
API cublasLtMatrixLayoutCreate(Layout** l, int type, u64 rows, u64 cols, i64 ld) {
  *l = new Layout{type, rows, cols, ld};
  return 0;
}
API cublasLtMatrixLayoutDestroy(Layout* l) {
  delete l;
  return 0;
}
API cublasLtMatmulPreferenceCreate(void** p) {
  *p = (void*)7;
  return 0;
}
API cublasLtMatmulPreferenceDestroy(void*) { return 0; }
API cublasLtMatmulPreferenceSetAttribute(void*, int, const void*, size_t) { return 0; }
API cublasLtMatmulAlgoGetHeuristic(void*, void*, Layout*, Layout*, Layout*, Layout*, void*, int, void* result, int* found) {
  memset(result, 0, 96);
  *found = 1;
  return 0;
}
// w is [in][out], x [in][rows] and y [out][rows], column-major; w is transposed.
API cublasLtMatmul(void*, void*, const float* alpha, const void* w, const Layout* wl, const void* x, const Layout* xl, const float* beta, const void*, const Layout*, void* y,
                   const Layout* yl, const void*, void*, size_t, void* stream) {
  if (wl->rows != xl->rows || wl->cols != yl->rows || xl->cols != yl->cols || yl->type != 0) return 7;
  Layout a = *wl, b = *xl, d = *yl;
  float scale = *alpha, keep = *beta;
  Work work;
  work.other = [=] {
    std::vector<float> row(a.rows);
    for (u64 o = 0; o < a.cols; o++) {
      for (u64 k = 0; k < a.rows; k++) row[k] = element(w, o * a.ld + k, a.type);
      for (u64 r = 0; r < b.cols; r++) {
        float sum = 0;
        for (u64 k = 0; k < a.rows; k++) sum += row[k] * element(x, r * b.ld + k, b.type);
        float& out = ((float*)y)[r * d.ld + o];
        out = scale * sum + (keep != 0 ? keep * out : 0);
      }
    }
  };
  return put(stream, std::move(work));
}
