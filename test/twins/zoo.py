#!/usr/bin/env python3
"""Twins of the zoo in PyTorch: writes NAME.safetensors with weights (under their own names), an input (`input/x`) and PyTorch's output (`output/logits`).

Usage: zoo.py FOLDER [NAME...]    needs torch, and torchvision for the networks that are its own

resnet50, resnext50_32x4d, resnet101, efficientnet_b0 and mobilenet_v2 are torchvision's, with random weights and running statistics of three batches. nf_resnet50 and nfnet_f0 are written
here from the formulas of arXiv 2101.08692 and 2102.06171 (test/zoo-goldens has small_nf_resnet and small_nfnet, the same with few channels); every weight, gain and bias is random, so that nothing is hidden by a value that starts at 0 or 1.
"""
import json, math, os, struct, sys
import torch
from torch import nn
import torch.nn.functional as F

GAIN = {"relu": 1.7139588594436646, "gelu": 1.7015043497085571}
ALPHA = 0.2


def act(x, kind):
    y = F.relu(x) if kind == "relu" else 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return y * GAIN[kind]


def same(size, kernel, stride):
    total = max(0, (math.ceil(size / stride) - 1) * stride + kernel - size)
    return total // 2, total - total // 2


def pad_same(x, kernel, stride, value=0.0):
    return F.pad(x, (*same(x.shape[3], kernel, stride), *same(x.shape[2], kernel, stride)), value=value)


class WSConv(nn.Module):
    def __init__(self, cin, cout, kernel, stride=1, groups=1):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(cout, cin // groups, kernel, kernel) * math.sqrt(groups / (cin * kernel * kernel)) + 0.01)
        self.gain = nn.Parameter(1 + 0.1 * torch.randn(cout, 1, 1, 1))
        self.bias = nn.Parameter(0.1 * torch.randn(cout))
        self.kernel, self.stride, self.groups = kernel, stride, groups

    def forward(self, x):
        w = self.weight
        fan = w[0].numel()
        var, mean = torch.var_mean(w, dim=(1, 2, 3), keepdim=True, unbiased=False)
        w = (w - mean) * self.gain / torch.sqrt(torch.clamp(var * fan, min=1e-4))
        return F.conv2d(pad_same(x, self.kernel, self.stride), w, self.bias, self.stride, groups=self.groups)


class SE(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x):
        gate = 2 * torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean((2, 3))))))
        return x * gate[:, :, None, None]


class Downsample(nn.Module):
    def __init__(self, cin, cout, stride, pooled):
        super().__init__()
        self.stride, self.pooled = stride, pooled
        self.conv = WSConv(cin, cout, 1, 1 if pooled else stride)

    def forward(self, h):
        return self.conv(F.avg_pool2d(h, 2, 2) if self.pooled and self.stride > 1 else h)


class Block(nn.Module):
    def __init__(self, cin, cout, middle, group, stride, std, kind, spatial, pooled, se):
        super().__init__()
        groups = middle // group
        self.std, self.kind = std, kind
        self.downsample = Downsample(cin, cout, stride, pooled) if stride > 1 or cin != cout else None
        self.conv1 = WSConv(cin, middle, 1)
        self.conv2 = WSConv(middle, middle, 3, stride, groups)
        self.conv2b = WSConv(middle, middle, 3, 1, groups) if spatial == 2 else None
        self.conv3 = WSConv(middle, cout, 1)
        self.attn_last = SE(cout, cout // 2) if se else None
        self.skipinit_gain = nn.Parameter(torch.rand(()) + 0.5)

    def forward(self, x):
        h = act(x, self.kind) / self.std
        short = self.downsample(h) if self.downsample else x
        y = self.conv2(act(self.conv1(h), self.kind))
        if self.conv2b:
            y = self.conv2b(act(y, self.kind))
        y = self.conv3(act(y, self.kind))
        if self.attn_last:
            y = self.attn_last(y)
        return ALPHA * self.skipinit_gain * y + short


def stages(depths, make):
    """Blocks with the deviation that each expects: it starts anew with each stage, after the stage's first block has read it."""
    expected, out = 1.0, []
    for s, depth in enumerate(depths):
        blocks = []
        for b in range(depth):
            blocks.append(make(s, b, expected))
            expected = math.sqrt((1.0 if b == 0 else expected**2) + ALPHA**2)
        out.append(nn.Sequential(*blocks))
    return nn.Sequential(*out)


class Stem(nn.Module):
    def __init__(self, plan):
        super().__init__()
        cin = 3
        for i, (cout, stride) in enumerate(plan):
            setattr(self, f"conv{i + 1}", WSConv(cin, cout, 3, stride))
            cin = cout
        self.count = len(plan)

    def forward(self, x):
        for i in range(self.count):
            x = getattr(self, f"conv{i + 1}")(act(x, "gelu") if i else x)
        return x


class Head(nn.Module):
    def __init__(self, width, classes):
        super().__init__()
        self.fc = nn.Linear(width, classes)

    def forward(self, x):
        return self.fc(x.mean((2, 3)))


class NFNet(nn.Module):
    def __init__(self, depths, widths, group, classes):
        super().__init__()
        w = widths[0]
        self.stem = Stem([(w // 16, 2), (w // 8, 1), (w // 4, 1), (w // 2, 2)])
        make = lambda s, b, std: Block(([w // 2] + widths)[s] if b == 0 else widths[s], widths[s], widths[s] // 2, group, 2 if s and b == 0 else 1, std, "gelu", 2, True, True)
        self.stages = stages(depths, make)
        self.final_conv = WSConv(widths[-1], 2 * widths[-1], 1)
        self.head = Head(2 * widths[-1], classes)

    def forward(self, x):
        return self.head(act(self.final_conv(self.stages(self.stem(x))), "gelu"))


class NFResNet(nn.Module):
    def __init__(self, depths, width, classes):
        super().__init__()
        self.stem = nn.Module()
        self.stem.conv = WSConv(3, width // 4, 7, 2)
        widths = [width * 2**s for s in range(len(depths))]
        make = lambda s, b, std: Block(([width // 4] + widths)[s] if b == 0 else widths[s], widths[s], widths[s] // 4, widths[s] // 4, 2 if s and b == 0 else 1, std, "relu", 1, False, False)
        self.stages = stages(depths, make)
        self.head = Head(widths[-1], classes)

    def forward(self, x):
        y = self.stem.conv(x)
        y = F.max_pool2d(pad_same(y, 3, 2, float("-inf")), 3, 2)
        return self.head(act(self.stages(y), "relu"))


def torchvision_model(name):
    import torchvision.models as models
    model = getattr(models, name)(weights=None)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for m in norms:
        m.momentum = None
        with torch.no_grad():
            m.weight.uniform_(0.5, 1.5)
            m.bias.normal_(0, 0.1)
    drops = [m for m in model.modules() if isinstance(m, nn.Dropout)]
    for m in drops:
        m.p = 0.0
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(8, 3, 96, 96))
    return model


NETWORKS = {
    "nf_resnet50": (lambda: NFResNet([3, 4, 6, 3], 256, 10), 64),
    "nfnet_f0": (lambda: NFNet([1, 2, 6, 3], [256, 512, 1536, 1536], 128, 10), 64),
    "small_nf_resnet": (lambda: NFResNet([2, 1], 32, 4), 16),
    "small_nfnet": (lambda: NFNet([1, 2], [16, 32], 4, 4), 16),
    **{name: (lambda name=name: torchvision_model(name), 224) for name in ("resnet50", "resnet101", "resnext50_32x4d", "efficientnet_b0", "mobilenet_v2")},
}


def save(path, tensors):
    header, at, data = {}, 0, []
    for name, t in tensors.items():
        raw = t.detach().contiguous().float().numpy().tobytes()
        header[name] = {"dtype": "F32", "shape": list(t.shape), "data_offsets": [at, at + len(raw)]}
        at += len(raw)
        data.append(raw)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(data))


folder, *names = sys.argv[1:]
os.makedirs(folder, exist_ok=True)
torch.set_num_threads(2)
for name in names or ["resnet50", "efficientnet_b0", "mobilenet_v2", "nf_resnet50", "nfnet_f0"]:
    torch.manual_seed(0)
    make, size = NETWORKS[name]
    model = make().eval()
    x = torch.randn(2, 3, size, size)
    with torch.no_grad():
        y = model(x)
    state = {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    save(os.path.join(folder, f"{name}.safetensors"), {**state, "input/x": x, "output/logits": y})
    print(name, "y std %.4f" % y.std(), flush=True)
