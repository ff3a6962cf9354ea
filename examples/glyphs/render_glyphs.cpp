// Draws training images for the example network: letters and digits of the DejaVu fonts, turned,
// sheared, scaled, moved, cluttered, blurred and noisy. The same kind of images as
// make_glyphs.py's, not the same bytes.
//   render_glyphs OUT.npz [IMAGES] [SEED]
#include <octet/base/error.h>
#include <octet/base/file.h>
#include <octet/base/parallel.h>
#include <octet/base/random.h>
#include <octet/io/npz.h>
#include <octet/tensor/tensor.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <string>
#include <vector>

#define STB_TRUETYPE_IMPLEMENTATION
#define STBTT_STATIC
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#include <stb/stb_truetype.h>
#pragma GCC diagnostic pop

using namespace octet;

namespace {

// Without I, O, Q and Z, which look like 1, 0 and 2.
const std::string kClasses = "0123456789ABCDEFGHJKLMNPRSTUVWXY";
const std::string kFontDir = "/usr/share/fonts/truetype/dejavu/";
const std::vector<std::string> kFonts{"DejaVuSans",          "DejaVuSans-Bold", "DejaVuSansMono",
                                      "DejaVuSansMono-Bold", "DejaVuSerif",     "DejaVuSerif-Bold"};
constexpr int kSide = 28;  // of an image, in pixels
constexpr int kScale = 3;  // glyphs are drawn this many times larger, then reduced
constexpr int kCanvas = kSide * kScale;
constexpr float kGrayStep = 8;  // gray levels are rounded to multiples of this

// A large picture in [0, 1], row by row.
using Canvas = std::array<float, kCanvas * kCanvas>;

// The classes' glyphs in one font, each centred on a canvas.
std::vector<Canvas> load_font(const std::string& name) {
  const std::string file = read_file(kFontDir + name + ".ttf");
  const auto* data = reinterpret_cast<const unsigned char*>(file.data());
  stbtt_fontinfo font;
  if (!stbtt_InitFont(&font, data, 0))
    throw Error(ErrorCode::corrupt, name + ": is no TrueType font");
  const float scale = stbtt_ScaleForMappingEmToPixels(&font, 22 * kScale);
  std::vector<Canvas> glyphs(kClasses.size());
  for (size_t k = 0; k < kClasses.size(); ++k) {
    int w = 0, h = 0;
    unsigned char* ink =
        stbtt_GetCodepointBitmap(&font, scale, scale, kClasses[k], &w, &h, nullptr, nullptr);
    const int left = (kCanvas - w) / 2, top = (kCanvas - h) / 2;
    for (int y = std::max(0, -top); y < h && top + y < kCanvas; ++y)
      for (int x = std::max(0, -left); x < w && left + x < kCanvas; ++x)
        glyphs[k][(top + y) * kCanvas + left + x] = static_cast<float>(ink[y * w + x]) / 255;
    stbtt_FreeBitmap(ink, nullptr);
  }
  return glyphs;
}

// The glyph turned, sheared, scaled and moved at random, interpolated linearly.
Canvas transformed(const Canvas& glyph, Random& random) {
  const double turn = random.uniform(-20, 20) * M_PI / 180, shear = random.uniform(-0.3, 0.3);
  const double scale_x = random.uniform(0.7, 1.2), scale_y = random.uniform(0.7, 1.2);
  const double move_x = random.uniform(-3, 3) * kScale, move_y = random.uniform(-3, 3) * kScale;
  // turn * shear * scale takes the glyph to its place; each pixel of the result looks up where it
  // came from.
  const double a = std::cos(turn) * scale_x,
               b = (std::cos(turn) * shear - std::sin(turn)) * scale_y;
  const double c = std::sin(turn) * scale_x,
               d = (std::sin(turn) * shear + std::cos(turn)) * scale_y;
  const double det = a * d - b * c, centre = (kCanvas - 1) / 2.0;
  auto at = [&](int x, int y) {
    return x < 0 || y < 0 || x >= kCanvas || y >= kCanvas
               ? 0.0
               : static_cast<double>(glyph[y * kCanvas + x]);
  };
  Canvas result;
  for (int y = 0; y < kCanvas; ++y)
    for (int x = 0; x < kCanvas; ++x) {
      const double dx = x - centre - move_x, dy = y - centre - move_y;
      const double from_x = centre + (d * dx - b * dy) / det,
                   from_y = centre + (a * dy - c * dx) / det;
      const int x0 = static_cast<int>(std::floor(from_x)),
                y0 = static_cast<int>(std::floor(from_y));
      const double right = from_x - x0, down = from_y - y0;
      result[y * kCanvas + x] =
          static_cast<float>((1 - down) * ((1 - right) * at(x0, y0) + right * at(x0 + 1, y0)) +
                             down * ((1 - right) * at(x0, y0 + 1) + right * at(x0 + 1, y0 + 1)));
    }
  return result;
}

// A straight stroke over the picture, in black or white.
void add_stroke(Canvas& canvas, Random& random) {
  auto end = [&] { return random.uniform(-0.1 * kCanvas, 1.1 * kCanvas); };
  const double x0 = end(), y0 = end(), x1 = end(), y1 = end();
  const double length = std::hypot(x1 - x0, y1 - y0);
  const auto width = static_cast<double>(random.integer(kScale, 2 * kScale));
  const float ink = random.uniform() < 0.5 ? 0.0f : 200.0f / 255;
  for (int y = 0; y < kCanvas; ++y)
    for (int x = 0; x < kCanvas; ++x) {
      const double along = ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / length;
      const double across = ((x - x0) * (y1 - y0) - (y - y0) * (x1 - x0)) / length;
      if (along >= 0 && along <= length && std::abs(across) <= width / 2)
        canvas[y * kCanvas + x] = ink;
    }
}

// Gaussian blur of `sigma`, then the mean of kScale by kScale pixels; beyond the border lies the
// border's value.
std::array<float, kSide * kSide> reduced(const Canvas& canvas, double sigma) {
  const int reach = static_cast<int>(std::ceil(3 * sigma));
  std::vector<double> bell;
  for (int i = -reach; i <= reach; ++i) bell.push_back(std::exp(-i * i / (2 * sigma * sigma)));
  const double sum = std::accumulate(bell.begin(), bell.end(), 0.0);
  // Both steps along one dimension are one product with this matrix.
  std::array<std::array<float, kCanvas>, kSide> weights{};
  for (int o = 0; o < kSide; ++o)
    for (int k = 0; k < kScale; ++k)
      for (int i = -reach; i <= reach; ++i)
        weights[o][std::clamp(o * kScale + k + i, 0, kCanvas - 1)] +=
            static_cast<float>(bell[i + reach] / sum / kScale);
  std::array<float, kSide * kSide> result{};
  for (int o = 0; o < kSide; ++o) {
    std::array<float, kCanvas> row{};
    for (int y = 0; y < kCanvas; ++y) {
      if (weights[o][y] == 0) continue;
      for (int x = 0; x < kCanvas; ++x) row[x] += weights[o][y] * canvas[y * kCanvas + x];
    }
    for (int p = 0; p < kSide; ++p)
      for (int x = 0; x < kCanvas; ++x) result[o * kSide + p] += weights[p][x] * row[x];
  }
  return result;
}

void draw(const Canvas& glyph, Random& random, uint8_t* pixels) {
  Canvas canvas = transformed(glyph, random);
  for (int64_t strokes = random.integer(0, 2); strokes > 0; --strokes) add_stroke(canvas, random);
  auto image = reduced(canvas, random.uniform(0.2, 1.1) * kScale);
  const double ink = random.uniform(70, 255), paper = random.uniform(0, 0.5) * ink,
               noise = random.uniform(0, 10);
  const bool dark_on_light = random.uniform() < 0.15;
  for (int i = 0; i < kSide * kSide; ++i) {
    double gray = paper + image[i] * (ink - paper) + random.normal() * noise;
    if (dark_on_light) gray = 255 - gray;
    pixels[i] =
        static_cast<uint8_t>(std::clamp(std::rint(gray / kGrayStep) * kGrayStep, 0.0, 255.0));
  }
}

void render(const std::string& path, int64_t count, uint64_t seed) {
  std::vector<std::vector<Canvas>> fonts;
  for (const std::string& name : kFonts) fonts.push_back(load_font(name));
  Random random(seed);
  // Classes as even as the count allows, in random order.
  std::vector<int64_t> labels(count);
  for (int64_t i = 0; i < count; ++i) labels[i] = i % static_cast<int64_t>(kClasses.size());
  for (int64_t i = count - 1; i > 0; --i) std::swap(labels[i], labels[random.integer(0, i)]);
  std::vector<uint64_t> seeds(count);
  for (uint64_t& s : seeds) s = random.next();

  Tensor images = Tensor::empty({count, 1, kSide, kSide}, DType::uint8);
  auto* pixels = images.data<uint8_t>();
  parallel_for(count, [&](int64_t i) {
    Random own(seeds[i]);
    draw(fonts[own.integer(0, static_cast<int64_t>(fonts.size()) - 1)][labels[i]], own,
         pixels + i * kSide * kSide);
  });
  write_npz(path, {{"images", images}, {"labels", Tensor::from(labels, {count})}});
}

}  // namespace

int main(int argc, char** argv) {
  const int64_t count = argc > 2 ? std::atoll(argv[2]) : 12000;
  if (argc < 2 || argc > 4 || count < 1) {
    std::fprintf(stderr, "usage: render_glyphs OUT.npz [IMAGES] [SEED]\n");
    return 2;
  }
  try {
    render(argv[1], count, argc > 3 ? std::strtoull(argv[3], nullptr, 10) : 1);
  } catch (const Error& e) {
    std::fprintf(stderr, "render_glyphs: %s (fonts: Debian's fonts-dejavu-core)\n", e.what());
    return 1;
  }
  std::printf("%s: %lld images of %d x %d pixels in %zu classes\n", argv[1],
              static_cast<long long>(count), kSide, kSide, kClasses.size());
}
