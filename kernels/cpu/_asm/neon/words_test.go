package neon

// words is a word and its text a line.
const words = `
0e33d7c1 fadd v1.2s, v30.2s, v19.2s
0eb3d7c1 fsub v1.2s, v30.2s, v19.2s
2e33dfc1 fmul v1.2s, v30.2s, v19.2s
2e33ffc1 fdiv v1.2s, v30.2s, v19.2s
0e33cfc1 fmla v1.2s, v30.2s, v19.2s
0eb3cfc1 fmls v1.2s, v30.2s, v19.2s
0e33f7c1 fmax v1.2s, v30.2s, v19.2s
0eb3f7c1 fmin v1.2s, v30.2s, v19.2s
2e33d7c1 faddp v1.2s, v30.2s, v19.2s
0e33e7c1 fcmeq v1.2s, v30.2s, v19.2s
2e33e7c1 fcmge v1.2s, v30.2s, v19.2s
2eb3e7c1 fcmgt v1.2s, v30.2s, v19.2s
0ea0f85f fabs v31.2s, v2.2s
2ea0f85f fneg v31.2s, v2.2s
0e21885f frintn v31.2s, v2.2s
0e21985f frintm v31.2s, v2.2s
0e21a85f fcvtns v31.2s, v2.2s
0ea1b85f fcvtzs v31.2s, v2.2s
0e21d85f scvtf v31.2s, v2.2s
4e33d7c1 fadd v1.4s, v30.4s, v19.4s
4eb3d7c1 fsub v1.4s, v30.4s, v19.4s
6e33dfc1 fmul v1.4s, v30.4s, v19.4s
6e33ffc1 fdiv v1.4s, v30.4s, v19.4s
4e33cfc1 fmla v1.4s, v30.4s, v19.4s
4eb3cfc1 fmls v1.4s, v30.4s, v19.4s
4e33f7c1 fmax v1.4s, v30.4s, v19.4s
4eb3f7c1 fmin v1.4s, v30.4s, v19.4s
6e33d7c1 faddp v1.4s, v30.4s, v19.4s
4e33e7c1 fcmeq v1.4s, v30.4s, v19.4s
6e33e7c1 fcmge v1.4s, v30.4s, v19.4s
6eb3e7c1 fcmgt v1.4s, v30.4s, v19.4s
4ea0f85f fabs v31.4s, v2.4s
6ea0f85f fneg v31.4s, v2.4s
4e21885f frintn v31.4s, v2.4s
4e21985f frintm v31.4s, v2.4s
4e21a85f fcvtns v31.4s, v2.4s
4ea1b85f fcvtzs v31.4s, v2.4s
4e21d85f scvtf v31.4s, v2.4s
4e73d7c1 fadd v1.2d, v30.2d, v19.2d
4ef3d7c1 fsub v1.2d, v30.2d, v19.2d
6e73dfc1 fmul v1.2d, v30.2d, v19.2d
6e73ffc1 fdiv v1.2d, v30.2d, v19.2d
4e73cfc1 fmla v1.2d, v30.2d, v19.2d
4ef3cfc1 fmls v1.2d, v30.2d, v19.2d
4e73f7c1 fmax v1.2d, v30.2d, v19.2d
4ef3f7c1 fmin v1.2d, v30.2d, v19.2d
6e73d7c1 faddp v1.2d, v30.2d, v19.2d
4e73e7c1 fcmeq v1.2d, v30.2d, v19.2d
6e73e7c1 fcmge v1.2d, v30.2d, v19.2d
6ef3e7c1 fcmgt v1.2d, v30.2d, v19.2d
4ee0f85f fabs v31.2d, v2.2d
6ee0f85f fneg v31.2d, v2.2d
4e61885f frintn v31.2d, v2.2d
4e61985f frintm v31.2d, v2.2d
4e61a85f fcvtns v31.2d, v2.2d
4ee1b85f fcvtzs v31.2d, v2.2d
4e61d85f scvtf v31.2d, v2.2d
0e3d8625 add v5.8b, v17.8b, v29.8b
2e3d8625 sub v5.8b, v17.8b, v29.8b
0e3dbe25 addp v5.8b, v17.8b, v29.8b
0e3d3625 cmgt v5.8b, v17.8b, v29.8b
0e1d3a25 zip1 v5.8b, v17.8b, v29.8b
0e1d7a25 zip2 v5.8b, v17.8b, v29.8b
0e1d1a25 uzp1 v5.8b, v17.8b, v29.8b
0e1d2a25 trn1 v5.8b, v17.8b, v29.8b
0e1d6a25 trn2 v5.8b, v17.8b, v29.8b
0e0306c3 dup v3.8b, v22.b[1]
0f0b5649 shl v9.8b, v18.8b, #3
2f0d0649 ushr v9.8b, v18.8b, #3
0f0d0649 sshr v9.8b, v18.8b, #3
4e3d8625 add v5.16b, v17.16b, v29.16b
6e3d8625 sub v5.16b, v17.16b, v29.16b
4e3dbe25 addp v5.16b, v17.16b, v29.16b
4e3d3625 cmgt v5.16b, v17.16b, v29.16b
4e1d3a25 zip1 v5.16b, v17.16b, v29.16b
4e1d7a25 zip2 v5.16b, v17.16b, v29.16b
4e1d1a25 uzp1 v5.16b, v17.16b, v29.16b
4e1d2a25 trn1 v5.16b, v17.16b, v29.16b
4e1d6a25 trn2 v5.16b, v17.16b, v29.16b
4e0306c3 dup v3.16b, v22.b[1]
4f0b5649 shl v9.16b, v18.16b, #3
6f0d0649 ushr v9.16b, v18.16b, #3
4f0d0649 sshr v9.16b, v18.16b, #3
0e7d8625 add v5.4h, v17.4h, v29.4h
2e7d8625 sub v5.4h, v17.4h, v29.4h
0e7dbe25 addp v5.4h, v17.4h, v29.4h
0e7d3625 cmgt v5.4h, v17.4h, v29.4h
0e5d3a25 zip1 v5.4h, v17.4h, v29.4h
0e5d7a25 zip2 v5.4h, v17.4h, v29.4h
0e5d1a25 uzp1 v5.4h, v17.4h, v29.4h
0e5d2a25 trn1 v5.4h, v17.4h, v29.4h
0e5d6a25 trn2 v5.4h, v17.4h, v29.4h
0e0606c3 dup v3.4h, v22.h[1]
0f135649 shl v9.4h, v18.4h, #3
2f1d0649 ushr v9.4h, v18.4h, #3
0f1d0649 sshr v9.4h, v18.4h, #3
4e7d8625 add v5.8h, v17.8h, v29.8h
6e7d8625 sub v5.8h, v17.8h, v29.8h
4e7dbe25 addp v5.8h, v17.8h, v29.8h
4e7d3625 cmgt v5.8h, v17.8h, v29.8h
4e5d3a25 zip1 v5.8h, v17.8h, v29.8h
4e5d7a25 zip2 v5.8h, v17.8h, v29.8h
4e5d1a25 uzp1 v5.8h, v17.8h, v29.8h
4e5d2a25 trn1 v5.8h, v17.8h, v29.8h
4e5d6a25 trn2 v5.8h, v17.8h, v29.8h
4e0606c3 dup v3.8h, v22.h[1]
4f135649 shl v9.8h, v18.8h, #3
6f1d0649 ushr v9.8h, v18.8h, #3
4f1d0649 sshr v9.8h, v18.8h, #3
0ebd8625 add v5.2s, v17.2s, v29.2s
2ebd8625 sub v5.2s, v17.2s, v29.2s
0ebdbe25 addp v5.2s, v17.2s, v29.2s
0ebd3625 cmgt v5.2s, v17.2s, v29.2s
0e9d3a25 zip1 v5.2s, v17.2s, v29.2s
0e9d7a25 zip2 v5.2s, v17.2s, v29.2s
0e9d1a25 uzp1 v5.2s, v17.2s, v29.2s
0e9d2a25 trn1 v5.2s, v17.2s, v29.2s
0e9d6a25 trn2 v5.2s, v17.2s, v29.2s
0e0c06c3 dup v3.2s, v22.s[1]
0f235649 shl v9.2s, v18.2s, #3
2f3d0649 ushr v9.2s, v18.2s, #3
0f3d0649 sshr v9.2s, v18.2s, #3
4ebd8625 add v5.4s, v17.4s, v29.4s
6ebd8625 sub v5.4s, v17.4s, v29.4s
4ebdbe25 addp v5.4s, v17.4s, v29.4s
4ebd3625 cmgt v5.4s, v17.4s, v29.4s
4e9d3a25 zip1 v5.4s, v17.4s, v29.4s
4e9d7a25 zip2 v5.4s, v17.4s, v29.4s
4e9d1a25 uzp1 v5.4s, v17.4s, v29.4s
4e9d2a25 trn1 v5.4s, v17.4s, v29.4s
4e9d6a25 trn2 v5.4s, v17.4s, v29.4s
4e0c06c3 dup v3.4s, v22.s[1]
4f235649 shl v9.4s, v18.4s, #3
6f3d0649 ushr v9.4s, v18.4s, #3
4f3d0649 sshr v9.4s, v18.4s, #3
4efd8625 add v5.2d, v17.2d, v29.2d
6efd8625 sub v5.2d, v17.2d, v29.2d
4efdbe25 addp v5.2d, v17.2d, v29.2d
4efd3625 cmgt v5.2d, v17.2d, v29.2d
4edd3a25 zip1 v5.2d, v17.2d, v29.2d
4edd7a25 zip2 v5.2d, v17.2d, v29.2d
4edd1a25 uzp1 v5.2d, v17.2d, v29.2d
4edd2a25 trn1 v5.2d, v17.2d, v29.2d
4edd6a25 trn2 v5.2d, v17.2d, v29.2d
4e1806c3 dup v3.2d, v22.d[1]
4f435649 shl v9.2d, v18.2d, #3
6f7d0649 ushr v9.2d, v18.2d, #3
4f7d0649 sshr v9.2d, v18.2d, #3
2e3f6688 umax v8.8b, v20.8b, v31.8b
2e3f6e88 umin v8.8b, v20.8b, v31.8b
0e2008d9 rev64 v25.8b, v6.8b
0e202b6d saddlp v13.4h, v27.8b
0e206b6d sadalp v13.4h, v27.8b
6e3f6688 umax v8.16b, v20.16b, v31.16b
6e3f6e88 umin v8.16b, v20.16b, v31.16b
4e2008d9 rev64 v25.16b, v6.16b
4e202b6d saddlp v13.8h, v27.16b
4e206b6d sadalp v13.8h, v27.16b
2e7f6688 umax v8.4h, v20.4h, v31.4h
2e7f6e88 umin v8.4h, v20.4h, v31.4h
0e6008d9 rev64 v25.4h, v6.4h
0e602b6d saddlp v13.2s, v27.4h
0e606b6d sadalp v13.2s, v27.4h
6e7f6688 umax v8.8h, v20.8h, v31.8h
6e7f6e88 umin v8.8h, v20.8h, v31.8h
4e6008d9 rev64 v25.8h, v6.8h
4e602b6d saddlp v13.4s, v27.8h
4e606b6d sadalp v13.4s, v27.8h
2ebf6688 umax v8.2s, v20.2s, v31.2s
2ebf6e88 umin v8.2s, v20.2s, v31.2s
0ea008d9 rev64 v25.2s, v6.2s
0ea02b6d saddlp v13.1d, v27.2s
0ea06b6d sadalp v13.1d, v27.2s
6ebf6688 umax v8.4s, v20.4s, v31.4s
6ebf6e88 umin v8.4s, v20.4s, v31.4s
4ea008d9 rev64 v25.4s, v6.4s
4ea02b6d saddlp v13.2d, v27.4s
4ea06b6d sadalp v13.2d, v27.4s
4ebd8e25 cmtst v5.4s, v17.4s, v29.4s
0e3d8e25 cmtst v5.8b, v17.8b, v29.8b
6ebd4625 ushl v5.4s, v17.4s, v29.4s
6efd4625 ushl v5.2d, v17.2d, v29.2d
4e2c1ea2 and v2.16b, v21.16b, v12.16b
4e6c1ea2 bic v2.16b, v21.16b, v12.16b
4eac1ea2 orr v2.16b, v21.16b, v12.16b
6e2c1ea2 eor v2.16b, v21.16b, v12.16b
6e6c1ea2 bsl v2.16b, v21.16b, v12.16b
6eac1ea2 bit v2.16b, v21.16b, v12.16b
6eec1ea2 bif v2.16b, v21.16b, v12.16b
4eb81f07 mov v7.16b, v24.16b
6e17608b ext v11.16b, v4.16b, v23.16b, #12
6e16778e mov v14.h[5], v28.h[7]
6e1c278e mov v14.s[3], v28.s[1]
0f08a74a sshll v10.8h, v26.8b, #0
0f10a74a sshll v10.4s, v26.4h, #0
0f20a74a sshll v10.2d, v26.2s, #0
2f08a74a ushll v10.8h, v26.8b, #0
2f10a74a ushll v10.4s, v26.4h, #0
2e61382f shll v15.4s, v1.4h, #16
0e217850 fcvtl v16.4s, v2.4h
0e617850 fcvtl v16.2d, v2.2s
0e216850 fcvtn v16.4h, v2.4s
0e616850 fcvtn v16.2s, v2.2d
0e612be0 xtn v0.4h, v31.4s
0e614be0 sqxtn v0.4h, v31.4s
0e214be0 sqxtn v0.8b, v31.8h
2e612be0 sqxtun v0.4h, v31.4s
2e212be0 sqxtun v0.8b, v31.8h
0e33c07e smull v30.8h, v3.8b, v19.8b
0e33807e smlal v30.8h, v3.8b, v19.8b
2e33807e umlal v30.8h, v3.8b, v19.8b
4f08a74a sshll2 v10.8h, v26.16b, #0
4f10a74a sshll2 v10.4s, v26.8h, #0
4f20a74a sshll2 v10.2d, v26.4s, #0
6f08a74a ushll2 v10.8h, v26.16b, #0
6f10a74a ushll2 v10.4s, v26.8h, #0
6e61382f shll2 v15.4s, v1.8h, #16
4e217850 fcvtl2 v16.4s, v2.8h
4e617850 fcvtl2 v16.2d, v2.4s
4e216850 fcvtn2 v16.8h, v2.4s
4e616850 fcvtn2 v16.4s, v2.2d
4e612be0 xtn2 v0.8h, v31.4s
4e614be0 sqxtn2 v0.8h, v31.4s
4e214be0 sqxtn2 v0.16b, v31.8h
6e612be0 sqxtun2 v0.8h, v31.4s
6e212be0 sqxtun2 v0.16b, v31.8h
4e33c07e smull2 v30.8h, v3.16b, v19.16b
4e33807e smlal2 v30.8h, v3.16b, v19.16b
6e33807e umlal2 v30.8h, v3.16b, v19.16b
4f8fe3a6 sdot v6.4s, v29.16b, v15.4b[0]
6f8fe3a6 udot v6.4s, v29.16b, v15.4b[0]
4f8f13a6 fmla v6.4s, v29.4s, v15.s[0]
4f8f53a6 fmls v6.4s, v29.4s, v15.s[0]
4f8f93a6 fmul v6.4s, v29.4s, v15.s[0]
4fafe3a6 sdot v6.4s, v29.16b, v15.4b[1]
6fafe3a6 udot v6.4s, v29.16b, v15.4b[1]
4faf13a6 fmla v6.4s, v29.4s, v15.s[1]
4faf53a6 fmls v6.4s, v29.4s, v15.s[1]
4faf93a6 fmul v6.4s, v29.4s, v15.s[1]
4f8feba6 sdot v6.4s, v29.16b, v15.4b[2]
6f8feba6 udot v6.4s, v29.16b, v15.4b[2]
4f8f1ba6 fmla v6.4s, v29.4s, v15.s[2]
4f8f5ba6 fmls v6.4s, v29.4s, v15.s[2]
4f8f9ba6 fmul v6.4s, v29.4s, v15.s[2]
4fafeba6 sdot v6.4s, v29.16b, v15.4b[3]
6fafeba6 udot v6.4s, v29.16b, v15.4b[3]
4faf1ba6 fmla v6.4s, v29.4s, v15.s[3]
4faf5ba6 fmls v6.4s, v29.4s, v15.s[3]
4faf9ba6 fmul v6.4s, v29.4s, v15.s[3]
6eb0a932 umaxv s18, v9.4s
6e30f932 fmaxv s18, v9.4s
6eb0f932 fminv s18, v9.4s
4eb1b932 addv s18, v9.4s
6e303932 uaddlv h18, v9.16b
7d405e9f ldr h31, [x20, #46]
7d005e9f str h31, [x20, #46]
`
