#pragma once
// Pictures: JPEG, PNG and BMP to tensors, and resizing them.

#include <cstdint>
#include <filesystem>
#include <string>

#include "octet/tensor/tensor.h"

namespace octet {

// Decodes a picture to uint8 of shape (channels, height, width), row-major. channels is 3 (RGB;
// gray pictures have three equal planes) or 1 (gray; colours are weighted as luma, (77 R + 150 G +
// 29 B) / 256). Read are
//  JPEG  baseline and progressive, gray, colour and CMYK (ink over white paper: R = C K / 255 in
//  Adobe's convention) PNG   every kind: gray and colour of 1 to 16 bits, palettes, interlaced.
//  Transparency is dropped, 16-bit samples keep their
//        upper 8 bits, gamma and colour profiles are not applied
//  BMP   uncompressed: 1, 2, 4 and 8 bits with a palette, 16, 24 and 32 bits
// A rotation noted in EXIF is not applied. Errors, each naming the file: not_found, io as
// MappedFile::open; corrupt if it is damaged or cut short, or is too small for its number of
// pixels; unsupported for other kinds and beyond 2^27 pixels.
Tensor read_image(const std::filesystem::path& path, int64_t channels = 3);

// The same from memory; `name` is what errors call it.
Tensor decode_image(const void* data, size_t bytes, int64_t channels, const std::string& name);

// Resizes (..., H, W), uint8 or float32, to (..., height, width). Each pixel is interpolated
// linearly between the four around its centre, pixel centres lying at half-integers and the border
// being repeated: OpenCV's INTER_LINEAR and PyTorch's interpolate(mode="bilinear",
// align_corners=False), both without antialiasing. That is what common vision models are trained
// with, but it skips pixels when shrinking to less than half. Computed in float32; uint8 results
// are rounded half to even, so they can differ by 1 from OpenCV's, which uses 11-bit weights. Error
// invalid_argument for other dtypes, fewer than two dimensions or sizes < 1.
Tensor resize_bilinear(const Tensor& image, int64_t height, int64_t width);

}  // namespace octet
